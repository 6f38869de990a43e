package providers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strings"

	"github.com/miekg/dns"
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

// explain translates a failed run. With a TSIG key the server is asked the same questions as for rfc2136.
func (c *nsupdateClient) explain(ctx context.Context, server string, u update, failure nsupdateFailure) *Error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	d := diagnosis{prober: prober{server: server, key: c.key}, update: u, err: failure, selective: &c.selective}
	text := failure.Error()
	if _, exited := errors.AsType[*exec.ExitError](failure.err); !exited {
		return d.notRun(c.program, text)
	}
	if m := nsupdateAnswer.FindStringSubmatch(text); m != nil {
		return c.answered(ctx, d, m[1], m[2])
	}
	switch {
	case strings.Contains(text, "GSSAPI error"), strings.Contains(text, "tkey query failed"), strings.Contains(text, "krb5"):
		return d.noTicket(ctx, text)
	case strings.Contains(text, "Communication with"), strings.Contains(text, "could not reach any name server"), strings.Contains(text, "get address for"):
		return d.unreached(ctx, text)
	}
	return d.fails(fmt.Sprintf("nsupdate failed for zone %s on %s: %s", d.zone, server, text), "")
}

// notRun explains why there is no exit status of nsupdate's own.
func (d diagnosis) notRun(p program, text string) *Error {
	if errors.Is(d.err, errProgramTimeout) {
		return d.failsForNow(fmt.Sprintf("nsupdate got no answer from %s to the update of zone %s within %v", d.server, d.zone, p.timeout),
			`see whether the server answers, or give it longer: timeout = "30s"`)
	}
	return d.fails(fmt.Sprintf("nsupdate can't be run: %s", text), "apt-get install bind9-dnsutils, and see: ls -l "+p.path)
}

// answered explains a negative answer of the server.
func (c *nsupdateClient) answered(ctx context.Context, d diagnosis, code, signature string) *Error {
	keyed := c.key.name != ""
	switch rcode := dns.StringToRcode[code]; {
	case c.gss && signature != "":
		return d.fails(fmt.Sprintf("%s rejected the Kerberos signature of the update of zone %s (%s)", d.server, d.zone, signature),
			"set both clocks, and see that the server's keytab is current: timedatectl; klist -k")
	case rcode == dns.RcodeNotAuth:
		return d.notAuth(ctx)
	case rcode == dns.RcodeRefused && keyed:
		return d.refused(ctx)
	case rcode == dns.RcodeRefused && c.gss:
		return d.refusedPrincipal()
	case rcode == dns.RcodeRefused:
		return d.refusedAddress()
	case rcode == dns.RcodeNotZone:
		return d.notZone(ctx)
	default:
		return d.answered(rcode)
	}
}

// refusedPrincipal explains REFUSED to an update that Kerberos has signed.
func (d diagnosis) refusedPrincipal() *Error {
	e := d.fails(fmt.Sprintf("%s forbids our Kerberos principal to write TXT at %s (REFUSED)", d.server, firstFew(d.names(), ", ")),
		fmt.Sprintf(`the principal is in the keytab (klist -k); for BIND add to update-policy of zone %s: grant "PRINCIPAL@REALM" name %s. TXT; for Active Directory let the account create dnsNode objects in the zone`,
			d.zone, d.names()[0]))
	e.whole = false // another record of the group may be allowed
	return e
}

// refusedAddress explains REFUSED to an update without a signature, which only our address speaks for.
func (d diagnosis) refusedAddress() *Error {
	address := "OUR-ADDRESS"
	if conn, err := net.Dial("udp", d.server); err == nil { // sends nothing
		address, _, _ = net.SplitHostPort(conn.LocalAddr().String())
		conn.Close()
	}
	return d.fails(fmt.Sprintf("%s refuses updates of zone %s without a key from our address %s (REFUSED)", d.server, d.zone, address),
		fmt.Sprintf("better: a key, by key_file; else in the zone's statement: allow-update { %s; };", address))
}

// noTicket explains a failure before any update: Kerberos has no ticket for the server. The ticket is for the primary
// that the zone's SOA names, whatever server is asked.
func (d diagnosis) noTicket(ctx context.Context, text string) *Error {
	_, reason, found := strings.Cut(text, "GSSAPI error: ")
	if !found {
		reason = text
	}
	service := "DNS/PRIMARY"
	if reply, err := d.soa(ctx, d.zone, ""); err == nil && authority(reply) != nil {
		service = "DNS/" + plainName(authority(reply).Ns)
	}
	return d.failsForNow(fmt.Sprintf("nsupdate got no Kerberos ticket for %s on %s: %s", service, d.server, reason),
		fmt.Sprintf("our key must be in keytab and the realm's servers be known; see, as the user that runs the daemon: kinit -k -t KEYTAB PRINCIPAL && kvno %s", service))
}

// unreached explains why nsupdate didn't get through, by asking the server the simplest question over TCP.
func (d diagnosis) unreached(ctx context.Context, text string) *Error {
	name := d.names()[0]
	reply, err := d.soa(ctx, name, d.key.algorithm)
	if err != nil {
		d.err = err
		return d.noAnswer()
	}
	if soa := authority(reply); soa == nil || plainName(soa.Hdr.Name) != d.zone {
		return d.foreignZone(reply, name)
	}
	return d.failsForNow(fmt.Sprintf("%s answers questions over TCP, but nsupdate didn't get through with the update of zone %s: %s", d.server, d.zone, text),
		"if it uses UDP and a firewall drops that, leave out udp = true")
}
