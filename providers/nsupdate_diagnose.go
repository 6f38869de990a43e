package providers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
)

// nsupdateFailure is how a run of nsupdate ended, and its lines on standard error.
type nsupdateFailure struct {
	err  error
	said []string
}

// Error returns the lines, or how the run ended when there are none.
func (f nsupdateFailure) Error() string {
	if len(f.said) == 0 {
		return f.err.Error()
	}
	return strings.Join(f.said, "; ")
}

// Unwrap returns how the run ended.
func (f nsupdateFailure) Unwrap() error { return f.err }

// nsupdateAnswer finds the response code (RFC 2136, 2.2), and the error of the signature (RFC 8945, 5.2.1), in what nsupdate says.
var nsupdateAnswer = regexp.MustCompile(`update failed: ([A-Z]+)(?:\(([A-Z]+)\))?`)

// nsupdateTSIG is how nsupdate says that it can't verify the signature of an answer, or that there is none.
const nsupdateTSIG = "TSIG error with server"

// explain translates a failed run. With a TSIG key the server is asked the same questions as for rfc2136.
func (c *nsupdateClient) explain(ctx context.Context, d diagnosis, failure nsupdateFailure) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if _, exited := errors.AsType[*exec.ExitError](failure.err); !exited {
		return d.notRun(c.program, failure)
	}
	printed := strings.Join(failure.said, "; ") // all that a program of others has to say
	if strings.Contains(printed, nsupdateTSIG) {
		d.unproven = failure
	}
	if m := nsupdateAnswer.FindStringSubmatch(printed); m != nil {
		d.rcode, d.signature = dns.StringToRcode[m[1]], dns.StringToRcode[m[2]]
		if c.key.name != "" {
			return d.diagnose(ctx)
		}
		e := d.concluded(c.answered(ctx, d))
		if len(d.names()) > 1 && c.gss {
			e.effect = effectMaybe // each name went alone
		}
		return d.settled(ctx, e)
	}
	switch {
	case d.unproven != nil && c.gss:
		return c.unverified(ctx, d)
	case d.unproven != nil && c.key.name != "":
		return d.diagnose(ctx)
	case strings.Contains(printed, "GSSAPI error"), strings.Contains(printed, "tkey query failed"), strings.Contains(printed, "krb5"):
		return d.noTicket(ctx, printed)
	case strings.Contains(printed, "specified zone"): // asked before the update for where to send it, or for a ticket
		d.rcode = dns.RcodeNameError
		reply, err := d.soa(ctx, d.names()[0])
		if err != nil {
			break
		}
		e := d.foreignZone(reply, d.names()[0])
		e.effect = effectNone
		return e
	case strings.Contains(printed, "Communication with"), strings.Contains(printed, "could not reach any name server"), strings.Contains(printed, "get address for"):
		return d.unreached(ctx, printed)
	}
	e := d.fails(fmt.Sprintf("nsupdate failed for zone %s on %s: %v", d.zone, d.server, failure), "").divisible()
	e.effect = effectMaybe
	return e
}

// unverified looks at what became of an update when all that nsupdate has to say is that it can't verify the signature of
// the answer. Had the answer been a refusal, it would say that too. Samba's DNS server signs so, and Windows may: they have
// made the update.
func (c *nsupdateClient) unverified(ctx context.Context, d diagnosis) error {
	for _, name := range d.names() {
		s := d.look(ctx, name)
		made := s.sure
		for _, t := range d.records {
			if d.full(t) == name {
				made = made && slices.Contains(s.txt, t.Text) != d.removes
			}
		}
		if !made {
			e := d.failsForNow(fmt.Sprintf("nsupdate can't verify the signature of what %s answered to the update of zone %s, and the server doesn't show the change at %s", d.server, d.zone, name), "").divisible()
			e.effect = effectMaybe
			return e
		}
	}
	if !c.warned.Swap(true) {
		c.logger.Warn("the server's answers to updates carry signatures that can't be verified, as those of Samba's DNS server do; the records themselves are looked at instead", "server", d.server)
	}
	return nil
}

// notRun explains why there is no exit status of nsupdate's own.
func (d diagnosis) notRun(p program, failure nsupdateFailure) *Error {
	if errors.Is(d.err, errProgramTimeout) {
		e := d.failsForNow(fmt.Sprintf("nsupdate got no answer from %s to the update of zone %s within %v", d.server, d.zone, p.timeout),
			`see whether the server answers, or give it longer: timeout = "30s"`)
		e.effect = effectMaybe
		return e
	}
	return d.fails(fmt.Sprintf("nsupdate can't be run: %v", failure), "apt-get install bind9-dnsutils, and see: ls -l "+p.path)
}

// answered explains a negative answer of the server to an update that no TSIG key has signed.
func (c *nsupdateClient) answered(ctx context.Context, d diagnosis) *Error {
	product := d.seen.products.of(ctx, d.server)
	switch {
	case c.gss && d.signature != 0:
		return d.fails(fmt.Sprintf("%s rejected the Kerberos signature of the update of zone %s (%s)", d.server, d.zone, dns.RcodeToString[d.signature]),
			"set both clocks, and see that the server's keytab is current: timedatectl; klist -k")
	case d.rcode == dns.RcodeNotAuth:
		return d.notAuth(ctx, product)
	case d.rcode == dns.RcodeRefused && c.gss:
		return d.refusedPrincipal(product)
	case d.rcode == dns.RcodeRefused:
		return d.refusedAddress(product)
	case d.rcode == dns.RcodeNotZone:
		return d.notZone(ctx)
	case d.rcode == dns.RcodeServerFailure && c.gss:
		product = cmp.Or(product, ActiveDirectory) // Samba's DNS server doesn't say what it is
	}
	return d.answered(product)
}

// refusedPrincipal explains REFUSED to an update that Kerberos has signed.
func (d diagnosis) refusedPrincipal(product Product) *Error {
	cures := []string{"the principal is in the keytab (klist -k)"}
	if product == BIND || product == UnknownProduct {
		cures = append(cures, fmt.Sprintf(`for BIND add to update-policy of zone %s: grant "PRINCIPAL@REALM" name %s. TXT;`, d.zone, d.names()[0]))
	}
	if product != PowerDNS && product != Knot {
		cures = append(cures, "for Active Directory let the account create dnsNode objects in the zone, and write those that others have made")
	}
	return d.fails(fmt.Sprintf("%s forbids our Kerberos principal to write TXT at %s (REFUSED)", d.server, firstFew(d.names(), ", ")),
		strings.ReplaceAll(strings.Join(cures, "; "), ";;", ";")).divisible() // another record of the group may be allowed
}

// refusedAddress explains REFUSED to an update without a signature, which only our address speaks for.
func (d diagnosis) refusedAddress(product Product) *Error {
	address := d.ourAddress()
	cure := "let the server take updates from " + address
	switch product {
	case BIND:
		cure = fmt.Sprintf("in the zone's statement: allow-update { %s; };", address)
	case Knot:
		cure = fmt.Sprintf("in an acl of the zone: address: %s, action: update, update-type: [TXT]", address)
	case PowerDNS:
		cure = fmt.Sprintf("pdnsutil set-meta %s ALLOW-DNSUPDATE-FROM %s", d.zone, address)
	case ActiveDirectory:
		cure = "a keytab, with gss = true"
	}
	return d.fails(fmt.Sprintf("%s refuses updates of zone %s without a key from our address %s (REFUSED)", d.server, d.zone, address),
		"better: a key, by key_file; else "+cure)
}

// noTicket explains a failure before any update: Kerberos has no ticket for the server. The ticket is for the primary
// that the zone's SOA names, whatever server is asked.
func (d diagnosis) noTicket(ctx context.Context, text string) *Error {
	_, reason, found := strings.Cut(text, "GSSAPI error: ")
	if !found {
		reason = text
	}
	service := "DNS/PRIMARY"
	if primary := d.primary(ctx); primary != "" {
		service = "DNS/" + primary
	}
	cure := "our key must be in keytab and the realm's servers be known; see, as the user that runs the daemon: "
	if strings.Contains(text, "not found in Kerberos database") {
		cure = "the realm that was asked doesn't know this service: let default_realm in /etc/krb5.conf be the server's realm; see, as the user that runs the daemon: "
	}
	e := d.failsForNow(fmt.Sprintf("nsupdate got no Kerberos ticket for %s on %s: %s", service, d.server, reason),
		cure+"kinit -k -t KEYTAB PRINCIPAL && kvno "+service)
	e.effect = effectNone
	return e
}

// unreached explains why nsupdate didn't get through, by asking the server the simplest question over TCP.
func (d diagnosis) unreached(ctx context.Context, text string) *Error {
	name := d.names()[0]
	reply, err := d.soa(ctx, name)
	if err != nil {
		d.err = err
		return d.noAnswer()
	}
	if soa := authority(reply); soa == nil || dnsname.Canonical(soa.Hdr.Name) != d.zone {
		d.rcode = dns.RcodeNotAuth
		return d.foreignZone(reply, name)
	}
	return d.failsForNow(fmt.Sprintf("%s answers questions over TCP, but nsupdate didn't get through with the update of zone %s: %s", d.server, d.zone, text),
		"if it uses UDP and a firewall drops that, leave out udp = true")
}
