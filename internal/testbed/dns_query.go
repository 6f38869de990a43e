package testbed

import (
	"fmt"
	"net"

	"github.com/miekg/dns"
)

// serve handles one message, query or update.
func (d *DNS) serve(w dns.ResponseWriter, request *dns.Msg) {
	reply := new(dns.Msg).SetReply(request)
	signature := request.IsTsig()
	trusted := signature == nil || w.TsigStatus() == nil
	silent := false
	switch {
	case request.Opcode == dns.OpcodeUpdate:
		silent = d.update(reply, request, trusted)
	case !trusted: // sign says so
	case len(request.Question) == 1 && request.Question[0].Qclass == dns.ClassCHAOS && dns.CanonicalName(request.Question[0].Name) == "version.bind.":
		reply.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "version.bind.", Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}, Txt: []string{"9.18.0-testbed"}}}
	case request.Opcode != dns.OpcodeQuery || len(request.Question) != 1:
		reply.Rcode = dns.RcodeNotImplemented
	default:
		d.query(reply, request.Question[0])
	}
	if opt := request.IsEdns0(); opt != nil {
		reply.SetEdns0(1232, false)
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		reply.Truncate(udpSize(request))
	}
	if signature != nil {
		d.keys.sign(reply, signature, w.TsigStatus())
	}
	d.log(request, reply, silent)
	if silent {
		w.Close() // nothing but the end of a TCP connection; by UDP, silence
		return
	}
	w.WriteMsg(reply)
}

func udpSize(request *dns.Msg) int {
	if opt := request.IsEdns0(); opt != nil {
		return max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	return dns.MinMsgSize
}

func (d *DNS) log(request, reply *dns.Msg, silent bool) {
	if d.cfg.Log == nil {
		return
	}
	line := dns.OpcodeToString[request.Opcode]
	for _, q := range request.Question {
		line += " " + plainName(q.Name) + " " + dns.TypeToString[q.Qtype]
	}
	if request.Opcode == dns.OpcodeUpdate {
		line += fmt.Sprintf(" with %d records", len(request.Ns))
	}
	line += ": " + dns.RcodeToString[reply.Rcode]
	if silent {
		line += ", not answered"
	}
	d.cfg.Log(line)
}

// query fills in the answer from the zones. Aliases are followed within their zone, as BIND does, and further if the
// configuration says so.
func (d *DNS) query(reply *dns.Msg, q dns.Question) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := dns.CanonicalName(q.Name)
	zone := d.zoneOf(name)
	if zone == "" || q.Qclass != dns.ClassINET {
		reply.Rcode = dns.RcodeRefused
		return
	}
	reply.Authoritative = true
	for seen := map[string]bool{}; ; {
		if seen[name] {
			reply.Rcode = dns.RcodeServerFailure // a loop
			return
		}
		seen[name] = true
		if child := d.delegation(name, zone); child != nil {
			reply.Authoritative = len(reply.Answer) > 0
			reply.Ns = child
			return
		}
		found := d.rrset(name, q.Qtype)
		if len(found) > 0 {
			reply.Answer = append(reply.Answer, found...)
			return
		}
		alias := d.rrset(name, dns.TypeCNAME)
		if len(alias) == 0 {
			reply.Ns = d.rrset(zone, dns.TypeSOA)
			if !d.exists(name) {
				reply.Rcode = dns.RcodeNameError
			}
			return
		}
		reply.Answer = append(reply.Answer, alias...)
		target := dns.CanonicalName(alias[0].(*dns.CNAME).Target)
		there := d.zoneOf(target)
		if there == "" || there != zone && !d.cfg.FollowAliases {
			return // the client must ask on
		}
		name, zone = target, there
	}
}

// zoneOf returns the deepest zone that the name lies in, or "".
func (d *DNS) zoneOf(name string) string {
	best := ""
	for _, zone := range d.zones {
		if dns.IsSubDomain(zone, name) && len(zone) > len(best) {
			best = zone
		}
	}
	return best
}

// delegation returns the NS records of the highest zone cut between the zone's apex and the name, if there is one.
func (d *DNS) delegation(name, zone string) []dns.RR {
	starts := dns.Split(name)
	for i := len(starts) - dns.CountLabel(zone) - 1; i >= 0; i-- {
		if ns := d.rrset(name[starts[i]:], dns.TypeNS); len(ns) > 0 {
			return ns
		}
	}
	return nil
}

// rrset returns copies, since replies are packed after the lock is released.
func (d *DNS) rrset(name string, rrtype uint16) []dns.RR {
	var found []dns.RR
	for _, rr := range d.records[name] {
		if rr.Header().Rrtype == rrtype || rrtype == dns.TypeANY {
			found = append(found, dns.Copy(rr))
		}
	}
	return found
}

// exists tells a name without the wanted type from one that is not there at all (RFC 8020: a name above others exists).
func (d *DNS) exists(name string) bool {
	for other := range d.records {
		if dns.IsSubDomain(name, other) {
			return true
		}
	}
	return false
}
