package providers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// probeTime is how long the search for the cause of a failure may take in all.
const probeTime = 5 * time.Second

// policyTime is how long it is remembered that a server takes updates of a zone, though not all. Splitting a group is a
// matter of seconds.
const policyTime = time.Minute

// diagnosis is one failed update and the server that can be asked about it.
type diagnosis struct {
	prober
	update
	err error // what the library reported

	// selective remembers the servers and zones whose policy refused some records and not everything: while a group is
	// split to find those, each of its refusals isn't looked into again.
	selective *memory
}

// diagnose finds out why server didn't take u. NOTAUTH says the same for an unknown key, a wrong secret, a wrong clock and
// a foreign zone, and REFUSED for any policy, so the server is asked.
func (c *rfc2136Client) diagnose(ctx context.Context, server string, u update, err error) *Error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	d := diagnosis{prober: prober{server: server, key: c.key}, update: u, err: err, selective: &c.selective}
	rcode, answered := responseCode(err)
	switch {
	case errors.Is(err, dns.ErrAuth), rcode == dns.RcodeNotAuth:
		return d.notAuth(ctx)
	case rcode == dns.RcodeRefused:
		return d.refused(ctx)
	case rcode == dns.RcodeNotZone:
		return d.notZone(ctx)
	case answered:
		return d.answered(rcode)
	}
	return d.noAnswer()
}

// responseCode returns the code of a negative answer. The library has it only in its text.
func responseCode(err error) (rcode int, ok bool) {
	var name string
	n, _ := fmt.Sscanf(err.Error(), "dns response error code %q (%d)", &name, &rcode)
	return rcode, n == 2
}

// fails makes an error that a person must cure, and that is everybody's unless a caller says otherwise.
func (d diagnosis) fails(problem, hint string) *Error {
	return &Error{Problem: problem, Hint: hint, Err: d.err, whole: true}
}

func (d diagnosis) failsForNow(problem, hint string) *Error {
	return &Error{Problem: problem, Hint: hint, Err: d.err, whole: true, retryable: true}
}

// notAuth explains NOTAUTH (RFC 2136, 2.2; RFC 8945, 5.2).
func (d diagnosis) notAuth(ctx context.Context) *Error {
	name := d.names()[0]
	reply, err := d.soa(ctx, name, d.key.algorithm)
	if err != nil {
		return d.fails(fmt.Sprintf("%s answered NOTAUTH to the update of zone %s: key, secret, clock or zone; asked which, it failed: %v", d.server, d.zone, err), "")
	}
	switch code := tsigError(reply); code {
	case 0:
		return d.foreignZone(reply, name)
	case dns.RcodeBadKey:
		return d.badKey(ctx, name)
	case dns.RcodeBadSig:
		return d.fails(
			fmt.Sprintf("%s has another secret for TSIG key %q (BADSIG)", d.server, d.key.name),
			fmt.Sprintf("copy the key from the server again, or make a new one for both sides: tsig-keygen -a %s %s", d.key.algorithm, d.key.name))
	case dns.RcodeBadTime:
		return d.badTime(reply)
	default:
		return d.fails(fmt.Sprintf("%s rejected the signature with TSIG key %q (%s)", d.server, d.key.name, dns.RcodeToString[code]), "")
	}
}

func (d diagnosis) badKey(ctx context.Context, name string) *Error {
	algorithm, err := d.otherAlgorithm(ctx, name)
	switch {
	case err != nil:
		return d.fails(fmt.Sprintf("%s has no TSIG key %q for %s (BADKEY); asked for other algorithms, it failed: %v", d.server, d.key.name, d.key.algorithm, err), "")
	case algorithm != "":
		return d.fails(
			fmt.Sprintf("%s has TSIG key %q for %s, not for %s (BADKEY)", d.server, d.key.name, algorithm, d.key.algorithm),
			fmt.Sprintf(`set key_alg = "%s", or in the key file: algorithm %s;`, algorithm, algorithm))
	}
	return d.fails(
		fmt.Sprintf("%s has no TSIG key %q (BADKEY)", d.server, d.key.name),
		fmt.Sprintf(`on the server, name the file with key "%s" in named.conf: include "/etc/bind/%s.key"; and then: rndc reconfig`, d.key.name, d.key.name))
}

func (d diagnosis) badTime(reply *dns.Msg) *Error {
	ours := time.Now().UTC()
	const hint = "set the clock that is wrong: timedatectl set-ntp true"
	theirs, ok := serverTime(reply)
	if !ok {
		return d.fails(fmt.Sprintf("the clock of %s differs by more than 300 s from ours, which says %s (BADTIME)", d.server, ours.Format(time.RFC3339)), hint)
	}
	return d.fails(fmt.Sprintf("the clock of %s says %s, ours says %s: a signature may be 300 s old, not %.0f s (BADTIME)", d.server,
		theirs.Format(time.RFC3339), ours.Format(time.RFC3339), ours.Sub(theirs).Abs().Seconds()), hint)
}

// foreignZone explains NOTAUTH to an update whose signature was right.
func (d diagnosis) foreignZone(reply *dns.Msg, name string) *Error {
	soa := authority(reply)
	if soa == nil {
		return d.fails(
			fmt.Sprintf("%s doesn't serve zone %s (NOTAUTH), nor another one that holds %s", d.server, d.zone, name),
			fmt.Sprintf(`name the zone's primary as server; its name is the first word of: dig +short SOA %s`, d.zone))
	}
	zone := plainName(soa.Hdr.Name)
	if zone == d.zone {
		return d.failsForNow(fmt.Sprintf("%s answered NOTAUTH to the update of zone %s, but it takes the key and serves the zone", d.server, d.zone), "try again")
	}
	return d.fails(
		fmt.Sprintf("%s doesn't serve zone %s (NOTAUTH); its zone for %s is %s", d.server, d.zone, name, zone),
		fmt.Sprintf(`zones = ["%s"]`, zone))
}

// refused explains REFUSED: the policy forbids these records, or every update of the zone with this key.
func (d diagnosis) refused(ctx context.Context) *Error {
	if at := d.server + " " + d.zone; !d.selective.has(at) {
		reply, err := d.emptyUpdate(ctx, d.zone)
		if err == nil && reply.Rcode == dns.RcodeRefused {
			return d.refusedAll(ctx)
		}
		if err == nil && reply.Rcode == dns.RcodeSuccess {
			d.selective.add(at)
		}
	}
	policy := d.fails(
		fmt.Sprintf("%s forbids TSIG key %q to write TXT at %s (REFUSED)", d.server, d.key.name, firstFew(d.names(), ", ")),
		fmt.Sprintf("add to update-policy of zone %s and run rndc reconfig: %s", d.zone, d.grants()))
	policy.whole = false // another record of the group may be allowed
	return policy
}

// refusedAll explains REFUSED to an update that changes nothing.
func (d diagnosis) refusedAll(ctx context.Context) *Error {
	problem := fmt.Sprintf("%s refuses every update of zone %s with TSIG key %q (REFUSED)", d.server, d.zone, d.key.name)
	reply, err := d.soa(ctx, d.zone, d.key.algorithm)
	if err == nil {
		if soa := authority(reply); soa != nil {
			problem += fmt.Sprintf(": it has no update-policy, or isn't the primary, which is %s by the SOA", plainName(soa.Ns))
		}
	}
	return d.fails(problem, fmt.Sprintf("let server be the primary, and add to its zone %s: update-policy { %s };", d.zone, d.grants()))
}

// notZone explains NOTZONE: a name isn't inside the zone (RFC 2136, 2.2).
func (d diagnosis) notZone(ctx context.Context) *Error {
	outside := d.names()[0]
	for _, name := range d.names() {
		if !dns.IsSubDomain(d.zone, name) {
			outside = name
			break
		}
	}
	e := d.fails(fmt.Sprintf("%s isn't in zone %s (NOTZONE)", outside, d.zone), "")
	e.whole = false
	reply, err := d.soa(ctx, outside, d.key.algorithm)
	if err != nil {
		return e
	}
	if soa := authority(reply); soa != nil {
		e.Hint = fmt.Sprintf(`%s serves the zone that holds it: zones = ["%s"]`, d.server, plainName(soa.Hdr.Name))
	} else {
		e.Hint = fmt.Sprintf("%s serves no zone that holds it: let another provider write it", d.server)
	}
	return e
}

// answered explains the response codes that need no question.
func (d diagnosis) answered(rcode int) *Error {
	problem := fmt.Sprintf("%s answered %s to the update of zone %s", d.server, dns.RcodeToString[rcode], d.zone)
	switch rcode {
	case dns.RcodeServerFailure:
		return d.failsForNow(problem, "often it can't write the zone's journal; its log on the server says: journalctl -u named -n 50")
	case dns.RcodeNotImplemented:
		return d.fails(problem+": it takes no dynamic updates", "name the zone's primary as server")
	}
	e := d.fails(problem, "")
	e.whole = false
	return e
}

// noAnswer explains why no answer came.
func (d diagnosis) noAnswer() *Error {
	host, port, _ := net.SplitHostPort(d.server)
	_, isOp := errors.AsType[*net.OpError](d.err)
	dnsErr, isDNS := errors.AsType[*net.DNSError](d.err)
	switch {
	case isDNS:
		return d.failsForNow(fmt.Sprintf("the address of server %s can't be looked up (%s)", host, dnsErr.Err), "see what this machine finds: getent hosts "+host)
	case errors.Is(d.err, syscall.ECONNREFUSED):
		return d.failsForNow(fmt.Sprintf("nothing listens at %s over TCP (connection refused)", d.server),
			fmt.Sprintf("on the server: systemctl status named; ss -ltn sport = :%s", port))
	case isTimeout(d.err) && isDial(d.err):
		return d.failsForNow(fmt.Sprintf("%s can't be reached over TCP (timeout)", d.server),
			fmt.Sprintf("perhaps a firewall is in between; try: nc -vz %s %s", host, port))
	case isTimeout(d.err):
		return d.failsForNow(fmt.Sprintf("%s accepted the connection but didn't answer the update of zone %s (timeout)", d.server, d.zone),
			"named hangs, or more updates wait than its update-quota allows (100); on the server: rndc status")
	case isOp, errors.Is(d.err, io.EOF), errors.Is(d.err, io.ErrUnexpectedEOF):
		return d.failsForNow(fmt.Sprintf("the connection to %s failed during the update of zone %s: %v", d.server, d.zone, d.err),
			"its log on the server says why: journalctl -u named -n 50")
	}
	return d.fails(fmt.Sprintf("the update of zone %s on %s failed: %v", d.zone, d.server, d.err), "")
}

// names returns the full names of the records, each once, without the trailing dot.
func (d diagnosis) names() []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range d.records {
		name := plainName(libdns.AbsoluteName(r.Name, d.zone))
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// grants returns the lines of update-policy that allow the records, of the first few if there are many.
func (d diagnosis) grants() string {
	var lines []string
	for _, name := range d.names() {
		lines = append(lines, fmt.Sprintf("grant %s name %s. TXT;", d.key.name, name))
	}
	return firstFew(lines, " ")
}

func firstFew(list []string, sep string) string {
	const few = 3
	if len(list) <= few {
		return strings.Join(list, sep)
	}
	return strings.Join(list[:few], sep) + fmt.Sprintf("%sand %d more", sep, len(list)-few)
}
