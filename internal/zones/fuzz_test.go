package zones

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
)

// answersOf are answers that are right, for a start.
func answersOf(f *testing.F) {
	f.Helper()
	for _, records := range [][]string{
		{`_acme-challenge.www.example.test. 60 IN TXT "x"`},
		{`_acme-challenge.www.example.test. 60 IN CNAME www.acme.test.`},
		{`example.test. 60 IN DNAME other.test.`, `_acme-challenge.www.example.test. 60 IN CNAME _acme-challenge.www.other.test.`},
		{`example.test. 60 IN CAA 0 issue "ca.invalid; accounturi=https://ca.invalid/1"`},
		{`example.test. 60 IN SOA ns1.example.test. hostmaster.example.test. 1 300 60 86400 5`},
		{`example.test. 60 IN NS ns1.example.test.`, `ns1.example.test. 60 IN A 192.0.2.1`},
	} {
		m := question("_acme-challenge.www.example.test", dns.TypeTXT, false)
		m.Response = true
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		m.Ns = m.Answer
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
}

// FuzzAnswer reads answers of DNS servers in all the ways that there are. Whatever they hold, it ends, names stay printable
// and short, and a value is there only when a TXT record has it.
func FuzzAnswer(f *testing.F) {
	answersOf(f)
	f.Fuzz(func(t *testing.T, packed []byte) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			return
		}
		const name = "_acme-challenge.www.example.test"
		found := locationIn(m, name)
		texts := []string{found.alias, found.zone, lastAlias(m, name), zoneIn(m, name), cutIn(m, name), answered(m)}
		for _, caa := range caaIn(m, name) {
			texts = append(texts, caa.String())
		}
		texts = append(texts, extendedErrors(m)...)
		for _, text := range texts {
			if len(text) > 10_000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%d characters: %.200q", len(text), text)
			}
		}
		if found.zone != "" && !dnsname.In(name, found.zone) {
			t.Errorf("%s isn't in zone %s", name, found.zone)
		}
		if cachedFor(m, 60) < 0 || cachedFor(m, 60) > time.Minute {
			t.Errorf("cached for %s", cachedFor(m, 60))
		}
		_ = holds(m, "x")
	})
}

// FuzzMeant looks for what may have been meant. What is proposed lies in a zone that is known.
func FuzzMeant(f *testing.F) {
	f.Add("_acme-challenge.www.crop.example.com", "corp.example.com")
	f.Add("", "a")
	f.Fuzz(func(t *testing.T, name, zone string) {
		if len(name) > 300 || len(zone) > 300 {
			return
		}
		host, in := Meant(name, []string{zone, "example.org"})
		if (host == "") != (in == "") || host != "" && !dnsname.In(host, in) {
			t.Errorf("%q in %q", host, in)
		}
	})
}
