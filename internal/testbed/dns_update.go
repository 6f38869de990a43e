package testbed

import (
	"slices"

	"github.com/miekg/dns"
)

// update answers an UPDATE message (RFC 2136, 3) and applies it, all of it or nothing. It reports whether the client
// must not hear of it.
func (d *DNS) update(reply, request *dns.Msg, trusted bool) (silent bool) {
	d.mu.Lock()
	d.updates++
	hook := d.onUpdate
	d.mu.Unlock()
	if !trusted {
		return false // the signature's own error is the answer
	}
	if request.IsTsig() != nil && hook != nil {
		rcode, answer := hook(request.Copy())
		if silent = !answer; rcode != dns.RcodeSuccess {
			reply.Rcode = rcode
			return silent
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if reply.Rcode = d.checkUpdate(request); reply.Rcode == dns.RcodeSuccess {
		d.apply(dns.CanonicalName(request.Question[0].Name), request.Ns)
	}
	return silent
}

// checkUpdate looks for reasons to refuse, before anything changes.
func (d *DNS) checkUpdate(m *dns.Msg) int {
	signature := m.IsTsig()
	if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeSOA || m.Question[0].Qclass != dns.ClassINET {
		return dns.RcodeFormatError
	}
	zone := dns.CanonicalName(m.Question[0].Name)
	switch {
	case !slices.Contains(d.zones, zone):
		return dns.RcodeNotAuth
	case signature == nil:
		return dns.RcodeRefused
	case len(m.Answer) > 0:
		return dns.RcodeNotImplemented // prerequisites; nobody here sends them, and to ignore one would be wrong
	}
	for _, rr := range m.Ns {
		h := rr.Header()
		if d.zoneOf(dns.CanonicalName(h.Name)) != zone {
			return dns.RcodeNotZone
		}
		if !wellFormed(h) {
			return dns.RcodeFormatError
		}
	}
	for _, rr := range m.Ns {
		if d.cfg.Allow != nil && !d.cfg.Allow(plainName(signature.Hdr.Name), plainName(rr.Header().Name)) {
			return dns.RcodeRefused
		}
	}
	return dns.RcodeSuccess
}

// wellFormed is the prescan of RFC 2136, 3.4.1.2.
func wellFormed(h *dns.RR_Header) bool {
	meta := h.Rrtype == dns.TypeANY || h.Rrtype == dns.TypeAXFR || h.Rrtype == dns.TypeIXFR
	switch h.Class {
	case dns.ClassINET:
		return !meta
	case dns.ClassANY:
		return h.Ttl == 0 && h.Rdlength == 0 && (!meta || h.Rrtype == dns.TypeANY)
	case dns.ClassNONE:
		return h.Ttl == 0 && !meta
	}
	return false
}

// apply changes the records (RFC 2136, 3.4.2) and raises the serial number if that made a difference.
func (d *DNS) apply(zone string, updates []dns.RR) {
	changed := false
	for _, rr := range updates {
		name := dns.CanonicalName(rr.Header().Name)
		before := d.records[name]
		var after []dns.RR
		if rr.Header().Class == dns.ClassINET {
			after = added(before, rr)
		} else {
			after = slices.DeleteFunc(slices.Clone(before), func(old dns.RR) bool {
				return deletes(rr, old) && !protected(rr, old, zone, before)
			})
		}
		if slices.EqualFunc(before, after, func(a, b dns.RR) bool { return a.String() == b.String() }) {
			continue
		}
		changed = true
		d.records[name] = after
		if len(after) == 0 {
			delete(d.records, name)
		}
	}
	if changed {
		d.raiseSerial(zone)
	}
}

// added returns the records of a name with one more. An alias tolerates no other record at its name and is added to
// none; as in BIND, such an addition is ignored without a word. The new TTL becomes that of the whole RRset.
func added(before []dns.RR, rr dns.RR) []dns.RR {
	rrtype := rr.Header().Rrtype
	if rrtype == dns.TypeSOA {
		return before
	}
	alias := rrtype == dns.TypeCNAME
	var after []dns.RR
	known := false
	for _, old := range before {
		switch {
		case (old.Header().Rrtype == dns.TypeCNAME) != alias:
			return before
		case alias && !dns.IsDuplicate(old, rr):
			continue // an alias takes the place of another
		}
		known = known || dns.IsDuplicate(old, rr)
		if old = dns.Copy(old); old.Header().Rrtype == rrtype {
			old.Header().Ttl = rr.Header().Ttl
		}
		after = append(after, old)
	}
	if known {
		return after
	}
	return append(after, dns.Copy(rr))
}

// deletes says whether the update removes the record: by name, by RRset or by exact value (RFC 2136, 2.5.2 to 2.5.4).
func deletes(update, old dns.RR) bool {
	h := update.Header()
	if h.Class == dns.ClassANY {
		return h.Rrtype == dns.TypeANY || h.Rrtype == old.Header().Rrtype
	}
	value := dns.Copy(update)
	value.Header().Class = old.Header().Class
	return dns.IsDuplicate(value, old)
}

// protected keeps what a zone can't be without: at the apex the SOA, all NS records from a deletion of everything, and the
// last from a deletion by value (RFC 2136, 3.4.2.3 and 3.4.2.4).
func protected(update, old dns.RR, zone string, before []dns.RR) bool {
	if dns.CanonicalName(old.Header().Name) != zone {
		return false
	}
	switch old.Header().Rrtype {
	case dns.TypeSOA:
		return true
	case dns.TypeNS:
		others := func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNS && rr != old }
		return update.Header().Class == dns.ClassANY || !slices.ContainsFunc(before, others)
	}
	return false
}

func (d *DNS) raiseSerial(zone string) {
	records := slices.Clone(d.records[zone])
	for i, rr := range records {
		if soa, ok := dns.Copy(rr).(*dns.SOA); ok {
			soa.Serial++
			records[i] = soa
		}
	}
	d.records[zone] = records
}
