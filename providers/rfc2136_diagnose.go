package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
)

// probeTime is how long the search for the cause of a failure may take in all.
const probeTime = 10 * time.Second

// policyTime is how long it is remembered that a server takes updates of a zone, though not all. Splitting a group is a
// matter of seconds.
const policyTime = time.Minute

// manyRecords is from how many TXT records at one name on their number may be why one more isn't taken. BIND takes 100
// since 9.18.28.
const manyRecords = 50

// verdict is what a server answered to an update.
type verdict struct {
	rcode     int
	signature int   // error field of its TSIG record (RFC 8945, 5.2); 0 for none
	unproven  error // why anybody may have sent it; nil when its signature is right, or nobody signs
}

func (v verdict) done() bool { return v.unproven == nil && v.rcode == dns.RcodeSuccess }

// badKey reports a BADKEY, which some servers send for more than unknown keys.
func (v verdict) badKey() bool { return v.signature == dns.RcodeBadKey }

// Error returns the answer, and why it isn't to be trusted.
func (v verdict) Error() string {
	text := "the answer to the update is " + v.code()
	if v.unproven != nil {
		text += ": " + v.unproven.Error()
	}
	return text
}

// code returns the response code and the error of the signature.
func (v verdict) code() string {
	text := cmp.Or(dns.RcodeToString[v.rcode], fmt.Sprint("RCODE ", v.rcode))
	if v.signature != 0 {
		text += "/" + cmp.Or(dns.RcodeToString[v.signature], fmt.Sprint(v.signature))
	}
	return text
}

// Unwrap returns why the answer isn't to be trusted.
func (v verdict) Unwrap() error { return v.unproven }

// memories are what was seen of servers lately.
type memories struct {
	// selective are the servers and zones whose policy refused some records and not everything: while a group is split to
	// find those, each of its refusals isn't looked into again.
	selective memory
	products  productMemory
}

func newMemories() memories {
	return memories{selective: memory{keep: policyTime}, products: productMemory{asked: memory{keep: policyTime}}}
}

// diagnosis is one failed update and the server that can be asked about it.
type diagnosis struct {
	prober
	update
	verdict       // zero when there is no answer
	err     error // what went wrong, as an error
	seen    *memories
}

// diagnose finds out why a server didn't confirm an update, and whether it was made all the same; nil if so. NOTAUTH says
// the same for an unknown key, a wrong secret, a wrong clock and a foreign zone, and REFUSED for any policy, so the server
// is asked. What it says without a right signature is a hint to the cause at best, and never proves what became of the
// update.
func (d diagnosis) diagnose(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	return d.settled(ctx, d.concluded(d.explain(ctx)))
}

// concluded adds what the answer alone says about what became of the update.
func (d diagnosis) concluded(e *Error) *Error {
	e.effect = effectNone
	if d.unproven != nil {
		e.effect = effectMaybe
	}
	return e
}

// settled looks at the update's only name, if it has one and may be to blame.
func (d diagnosis) settled(ctx context.Context, e *Error) error {
	if names := d.names(); len(names) == 1 && !e.whole {
		return d.settle(e, names[0], d.look(ctx, names[0]))
	}
	return e
}

// settle adds what the server has at the only name of the update. What it was seen to have as the update wants it is done,
// whatever was answered: most of all, a record that isn't there needs no removal.
func (d diagnosis) settle(e *Error, name string, s sight) error {
	switch {
	case !s.sure:
		return e
	case s.isName != "":
		e.Problem = fmt.Sprintf("%s doesn't take a TXT record at %s, which is an alias of %s (%s)", d.server, name, s.isName, d.code())
		e.Hint = "remove the CNAME, or let the alias lead into a zone of a provider; it is shown by: dig CNAME " + name
		e.retryable = false
	case !d.removes && d.rcode == dns.RcodeServerFailure && len(s.txt) >= manyRecords:
		e.Problem = fmt.Sprintf("%s doesn't take one more TXT record at %s, which has %d: too many records (%s)", d.server, name, len(s.txt), d.code())
		e.Hint = d.product().crowded(d.zone, name)
		e.retryable = false
	}
	present := 0
	for _, r := range d.records {
		if slices.Contains(s.txt, r.Text) {
			present++
		}
	}
	switch {
	case d.removes && present == 0, !d.removes && present == len(d.records):
		return nil
	case present == 0 || d.removes && present == len(d.records):
		e.effect = effectNone
	}
	return e
}

// product is what the server runs, as far as it was asked before.
func (d diagnosis) product() Product { return d.seen.products.remembered(d.server) }

// explain finds the cause.
func (d diagnosis) explain(ctx context.Context) *Error {
	product := d.seen.products.of(ctx, d.server)
	if d.unproven != nil {
		if e := d.unsigned(ctx, product); e != nil {
			return e
		}
	}
	switch d.rcode {
	case dns.RcodeNotAuth:
		return d.notAuth(ctx, product)
	case dns.RcodeRefused:
		return d.refused(ctx, product)
	case dns.RcodeNotZone:
		return d.notZone(ctx)
	}
	return d.answered(product)
}

// fails makes an error that a person must cure, and that is everybody's unless a caller says otherwise.
func (d diagnosis) fails(problem, hint string) *Error {
	return &Error{Problem: problem, Hint: hint, Err: d.err, whole: true}
}

func (d diagnosis) failsForNow(problem, hint string) *Error {
	return &Error{
		Problem:   problem,
		Hint:      hint,
		Err:       d.err,
		whole:     true,
		retryable: true,
	}
}

// divisible makes an error that may be one record's.
func (e *Error) divisible() *Error {
	e.whole = false
	return e
}

// unsigned explains an answer that the server didn't sign, or not rightly, by a signed question. It returns nil when the key
// is right, since the server signs its answer to that, and the cause lies elsewhere.
func (d diagnosis) unsigned(ctx context.Context, product Product) *Error {
	name := d.names()[0]
	reply, err := d.soa(ctx, name)
	if err != nil {
		return d.failsForNow(fmt.Sprintf("%s answered %s to the update of zone %s without a valid signature, and not to the question why: %v", d.server, d.code(), d.zone, err), "")
	}
	switch code := reply.tsigError(); {
	case reply.unproven == nil && d.rcode == dns.RcodeNotAuth:
		return nil // Knot's way to forbid a name
	case reply.unproven == nil:
		return d.failsForNow(
			fmt.Sprintf("the answer to the update of zone %s isn't signed by %s, as its other answers are, so it proves nothing (%s)", d.zone, d.server, d.code()),
			"look for something in between that answers in the server's place").divisible()
	case code == dns.RcodeBadKey && d.rcode == dns.RcodeRefused:
		return d.secondary(ctx)
	case code == dns.RcodeBadKey:
		return d.badKeyName(ctx, name, product)
	case code == dns.RcodeBadSig:
		return d.fails(
			fmt.Sprintf("%s has another secret for TSIG key %q (BADSIG)", d.server, d.key.name),
			fmt.Sprintf("copy the key from the server again, or make a new one for both sides: tsig-keygen -a %s %s", d.key.algorithm, d.key.name))
	case code == dns.RcodeBadTime:
		return d.badTime(reply)
	case code != 0:
		return d.fails(fmt.Sprintf("%s rejected the signature with TSIG key %q (%s)", d.server, d.key.name, dns.RcodeToString[code]), "")
	case reply.Rcode == dns.RcodeNotAuth:
		return d.keyRefused(ctx, name, product)
	case reply.Rcode == dns.RcodeRefused && d.rcode == dns.RcodeNotAuth:
		return d.foreignZone(reply, name) // Knot signs neither
	}
	return d.failsForNow(
		fmt.Sprintf("%s answers what we sign with TSIG key %q without a valid signature (%v), so its answers prove nothing", d.server, d.key.name, reply.unproven),
		"look for something in between that answers in the server's place")
}

// badKeyName explains a key that the server doesn't have, by that name and with that algorithm.
func (d diagnosis) badKeyName(ctx context.Context, name string, product Product) *Error {
	algorithm, err := d.otherAlgorithm(ctx, name)
	switch {
	case err != nil:
		return d.fails(fmt.Sprintf("%s has no TSIG key %q for %s (BADKEY); asked for other algorithms, it failed: %v", d.server, d.key.name, d.key.algorithm, err), "")
	case algorithm != "":
		return d.otherAlgorithmOfKey(algorithm, "BADKEY")
	}
	problem := fmt.Sprintf("%s has no TSIG key %q (BADKEY)", d.server, d.key.name)
	if product == Knot {
		problem = fmt.Sprintf("%s has no TSIG key %q, or no acl of zone %s names it (BADKEY)", d.server, d.key.name, d.zone)
	}
	return d.fails(problem, product.addsKey(d.access(d.key), d.key.algorithm))
}

func (d diagnosis) otherAlgorithmOfKey(algorithm, code string) *Error {
	return d.fails(
		fmt.Sprintf("%s has TSIG key %q for %s, not for %s (%s)", d.server, d.key.name, algorithm, d.key.algorithm, code),
		fmt.Sprintf(`set key_alg = "%s", or in the key file: algorithm %s;`, algorithm, algorithm))
}

// keyRefused explains NOTAUTH to a signed question, without a word about the signature. PowerDNS says no more.
func (d diagnosis) keyRefused(ctx context.Context, name string, product Product) *Error {
	if algorithm, err := d.otherAlgorithm(ctx, name); err == nil && algorithm != "" {
		return d.otherAlgorithmOfKey(algorithm, d.code())
	}
	return d.fails(
		fmt.Sprintf("%s doesn't take TSIG key %q for %s (%s): it has no key of that name, or another algorithm or secret", d.server, d.key.name, d.key.algorithm, d.code()),
		product.addsKey(d.access(d.key), d.key.algorithm))
}

func (d diagnosis) badTime(reply answer) *Error {
	ours := time.Now().UTC()
	const hint = "set the clock that is wrong: timedatectl set-ntp true"
	theirs, ok := serverTime(reply)
	if !ok {
		return d.fails(fmt.Sprintf("the clock of %s differs by more than 300 s from ours, which says %s (BADTIME)", d.server, ours.Format(time.RFC3339)), hint)
	}
	return d.fails(fmt.Sprintf("the clock of %s says %s, ours says %s: a signature may be 300 s old, not %.0f s (BADTIME)", d.server,
		theirs.Format(time.RFC3339), ours.Format(time.RFC3339), ours.Sub(theirs).Abs().Seconds()), hint)
}

// notAuth explains NOTAUTH of a server that takes the key (RFC 2136, 2.2; RFC 8945, 5.2). Knot says it, with BADKEY, for
// names that its acl doesn't list.
func (d diagnosis) notAuth(ctx context.Context, product Product) *Error {
	name := d.names()[0]
	reply, err := d.soa(ctx, name)
	switch soa := authority(reply); {
	case err != nil:
		return d.failsForNow(fmt.Sprintf("%s answered %s to the update of zone %s, and not to the question why: %v", d.server, d.code(), d.zone, err), "")
	case reply.tsigError() == dns.RcodeBadTime:
		return d.badTime(reply)
	case soa == nil || dnsname.Canonical(soa.Hdr.Name) != d.zone:
		return d.foreignZone(reply, name)
	case d.badKey():
		return d.refused(ctx, cmp.Or(product, Knot))
	}
	return d.failsForNow(fmt.Sprintf("%s answered %s to the update of zone %s, but it takes the key and serves the zone", d.server, d.code(), d.zone), "try again").divisible()
}

// foreignZone explains the refusal of an update whose signature was right, for a zone that isn't the server's.
func (d diagnosis) foreignZone(reply answer, name string) *Error {
	soa := authority(reply)
	if soa == nil {
		return d.fails(
			fmt.Sprintf("%s doesn't serve zone %s (%s), nor another one that holds %s", d.server, d.zone, d.code(), name),
			fmt.Sprintf(`name the zone's primary as server; its name is the first word of: dig +short SOA %s`, d.zone))
	}
	zone := dnsname.Canonical(soa.Hdr.Name)
	return d.fails(
		fmt.Sprintf("%s doesn't serve zone %s (%s); its zone for %s is %s", d.server, d.zone, d.code(), name, zone),
		fmt.Sprintf(`zones = ["%s"]`, zone))
}

// refused explains that the policy forbids these records, or every update of the zone with this key.
func (d diagnosis) refused(ctx context.Context, product Product) *Error {
	if at := d.server + " " + d.zone; !d.seen.selective.has(at) {
		reply, err := d.emptyUpdate(ctx, d.zone)
		switch {
		case err == nil && reply.unproven == nil && reply.Rcode == dns.RcodeSuccess:
			d.seen.selective.add(at)
		case err == nil && reply.Rcode == d.rcode:
			return d.refusedAll(ctx, product)
		}
	}
	if product == UnknownProduct && d.unproven == nil {
		product = d.behaves(ctx)
	}
	return d.fails(
		fmt.Sprintf("%s forbids TSIG key %q to write TXT at %s (%s)", d.server, d.key.name, firstFew(d.names(), ", "), d.code()),
		product.allowsNames(d.access(d.key))).divisible()
}

// behaves guesses the product of a server that signs its REFUSED and doesn't say what it is, by what it says to a key that
// it can't know: BIND says BADKEY, PowerDNS nothing. Knot never says REFUSED to a known key.
func (d diagnosis) behaves(ctx context.Context) Product {
	if stranger := d.stranger(ctx, d.zone); stranger.rcode != dns.RcodeNotAuth || !stranger.badKey() {
		return UnknownProduct
	}
	d.seen.products.remember(d.server, BIND)
	return BIND
}

// refusedAll explains the refusal of an update that changes nothing.
func (d diagnosis) refusedAll(ctx context.Context, product Product) *Error {
	if stranger := d.stranger(ctx, d.zone); stranger.rcode == dns.RcodeRefused && stranger.badKey() {
		return d.secondary(ctx)
	}
	if product == UnknownProduct && d.unproven == nil {
		product = d.behaves(ctx)
	}
	reason, cure := product.allowsZone(d.access(d.key), d.ourAddress())
	if primary := d.primary(ctx); product == UnknownProduct && primary != "" {
		reason += ", which is " + primary + " by the SOA"
	}
	problem := fmt.Sprintf("%s refuses every update of zone %s with TSIG key %q (%s): %s", d.server, d.zone, d.key.name, d.code(), reason)
	return d.fails(problem, cure)
}

// secondary explains a server that takes updates from nobody.
func (d diagnosis) secondary(ctx context.Context) *Error {
	primary := d.primary(ctx)
	if primary == "" {
		return d.fails(fmt.Sprintf("%s is a secondary of zone %s (%s)", d.server, d.zone, d.code()), "name the zone's primary as server")
	}
	return d.fails(fmt.Sprintf("%s is a secondary of zone %s, whose primary is %s by the SOA (%s)", d.server, d.zone, primary, d.code()),
		fmt.Sprintf(`name the primary: server = "%s"`, primary))
}

// primary is the zone's primary by its SOA, "" if the server doesn't say. An unsigned question does, for a server that
// doesn't take the key.
func (d diagnosis) primary(ctx context.Context) string {
	for _, key := range []tsigKey{d.key, {}} {
		p := d.prober
		p.key = key
		reply, err := p.soa(ctx, d.zone)
		if soa := authority(reply); err == nil && soa != nil {
			return dnsname.Canonical(soa.Ns)
		}
	}
	return ""
}

// ourAddress is the address from which the server hears us.
func (p prober) ourAddress() string {
	conn, err := net.Dial("udp", p.server) // sends nothing
	if err != nil {
		return "OUR-ADDRESS"
	}
	defer conn.Close()
	address, _, _ := net.SplitHostPort(conn.LocalAddr().String())
	return address
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
	e := d.fails(fmt.Sprintf("%s isn't in zone %s (NOTZONE)", outside, d.zone), "").divisible()
	reply, err := d.soa(ctx, outside)
	if err != nil {
		return e
	}
	if soa := authority(reply); soa != nil {
		e.Hint = fmt.Sprintf(`%s serves the zone that holds it: zones = ["%s"]`, d.server, dnsname.Canonical(soa.Hdr.Name))
	} else {
		e.Hint = fmt.Sprintf("%s serves no zone that holds it: let another provider write it", d.server)
	}
	return e
}

// answered explains the response codes that need no question. SERVFAIL is often the zone's, but not always: BIND says it
// of a name that is full, and Samba of a name that the account may not write.
func (d diagnosis) answered(product Product) *Error {
	problem := fmt.Sprintf("%s answered %s to the update of zone %s", d.server, d.code(), d.zone)
	at := " with TXT at " + firstFew(d.names(), ", ")
	switch d.rcode {
	case dns.RcodeServerFailure:
		hint := product.fails(d.names()[0])
		if d.removes { // which makes a name no fuller
			hint = "perhaps it can't write the zone; " + product.looksAtLog()
		}
		return d.failsForNow(problem+at, hint).divisible()
	case dns.RcodeNotImplemented:
		return d.fails(problem+": it takes no dynamic updates", "name the zone's primary as server")
	}
	e := d.fails(problem+at, "").divisible()
	e.retryable = d.unproven != nil
	return e
}

// noAnswer explains why no answer came.
func (d diagnosis) noAnswer() *Error {
	e := d.unreachable()
	e.effect = effectMaybe
	if isDial(d.err) {
		e.effect = effectNone
	}
	return e
}

func (d diagnosis) unreachable() *Error {
	host, port, _ := net.SplitHostPort(d.server)
	_, isOp := errors.AsType[*net.OpError](d.err)
	dnsErr, isDNS := errors.AsType[*net.DNSError](d.err)
	product := d.product()
	switch {
	case isDNS:
		return d.failsForNow(fmt.Sprintf("the address of server %s can't be looked up (%s)", host, dnsErr.Err), "see what this machine finds: getent hosts "+host)
	case errors.Is(d.err, syscall.ECONNREFUSED):
		look := fmt.Sprintf("ss -ltn sport = :%s", port)
		if unit := product.unit(); unit != "" {
			look = "systemctl status " + unit + "; " + look
		}
		return d.failsForNow(fmt.Sprintf("nothing listens at %s over TCP (connection refused)", d.server), "see whether the DNS server runs there: "+look)
	case isTimeout(d.err) && isDial(d.err):
		return d.failsForNow(fmt.Sprintf("%s can't be reached over TCP (timeout)", d.server),
			fmt.Sprintf("perhaps a firewall is in between; try: nc -vz %s %s", host, port))
	case isTimeout(d.err):
		hint := "see whether the server hangs; it may have too much to do: " + `timeout = "30s"`
		if product == BIND {
			hint = "named hangs, or more updates wait than its update-quota allows (100); on the server: rndc status"
		}
		return d.failsForNow(fmt.Sprintf("%s accepted the connection but didn't answer the update of zone %s (timeout)", d.server, d.zone), hint)
	case errors.Is(d.err, errBadAnswer), errors.Is(d.err, errNoAnswer):
		return d.failsForNow(fmt.Sprintf("%s didn't answer the update of zone %s: %v", d.server, d.zone, d.err), "see that a DNS server listens there: dig +tcp SOA "+d.zone+" @"+host+" -p "+port)
	case isOp, errors.Is(d.err, io.EOF), errors.Is(d.err, io.ErrUnexpectedEOF):
		return d.failsForNow(fmt.Sprintf("the connection to %s failed during the update of zone %s: %v", d.server, d.zone, d.err), product.looksAtLog())
	}
	return d.fails(fmt.Sprintf("the update of zone %s on %s failed: %v", d.zone, d.server, d.err), "").divisible()
}

const few = 3

func firstFew(list []string, sep string) string {
	if len(list) <= few {
		return strings.Join(list, sep)
	}
	return strings.Join(list[:few], sep) + fmt.Sprintf("%sand %d more", sep, len(list)-few)
}
