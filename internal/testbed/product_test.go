//go:build linux

package testbed

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Each product takes an update with its key, keeps it across a restart, and answers what the key may not do as users of
// it see it.
func TestProducts(t *testing.T) {
	tests := []struct {
		name    string
		start   func(context.Context, ProductConfig) (*Product, error)
		names   []string
		refused int // response code for a name that the key may not write; 0: there is no such rule
	}{
		{"Knot", StartKnot, []string{"_acme-challenge.www"}, dns.RcodeNotAuth},
		{"PowerDNS", StartPowerDNS, nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := tt.start(t.Context(), ProductConfig{Dir: t.TempDir(), Names: tt.names, Records: []string{"there IN TXT already"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			if rcode := updateProduct(t, p, "_acme-challenge.www.example.test. 60 IN TXT value"); rcode != dns.RcodeSuccess {
				t.Fatalf("an update is answered by %s", dns.RcodeToString[rcode])
			}
			if rcode := updateProduct(t, p, "_acme-challenge.ftp.example.test. 60 IN TXT value"); rcode != tt.refused {
				t.Errorf("an update of another name is answered by %s", dns.RcodeToString[rcode])
			}
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := p.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			all, err := p.TXT(t.Context(), "example.test")
			if err != nil || !slices.Equal(all["_acme-challenge.www.example.test"], []string{"value"}) || !slices.Equal(all["there.example.test"], []string{"already"}) {
				t.Errorf("it serves %v, %v", all, err)
			}
		})
	}
}

func updateProduct(t *testing.T, p *Product, line string) int {
	t.Helper()
	rr, err := dns.NewRR(line)
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetUpdate("example.test.")
	m.Insert([]dns.RR{rr})
	m.SetTsig("acme-key.", dns.HmacSHA256, 300, time.Now().Unix())
	client := dns.Client{Net: "tcp", Timeout: 10 * time.Second, TsigSecret: map[string]string{"acme-key.": p.Key("acme-key").Secret}}
	reply, _, err := client.ExchangeContext(t.Context(), m, p.Addr())
	if reply == nil {
		t.Fatal(err)
	}
	return reply.Rcode
}
