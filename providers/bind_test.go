package providers

import (
	"context"
	"testing"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

// dnsServer is a real server of any product, started by the testbed.
type dnsServer interface {
	Addr() string
	Key(name string) testbed.TSIGKey
	KeyFile(name string) string
	TXT(ctx context.Context, zone string) (map[string][]string, error)
}

// serverHarness is the side doors to zone example.test of a server, by one of its keys.
func serverHarness(b dnsServer, key string, client Client) providertest.Harness {
	return providertest.Harness{
		Client: client,
		Zone:   "example.test",
		TXT:    func(ctx context.Context) (map[string][]string, error) { return b.TXT(ctx, "example.test") },
		TTL:    func(ctx context.Context, name string) (time.Duration, error) { return askTTL(ctx, b.Addr(), name) },
		Put: func(ctx context.Context, name, value string) error {
			k := b.Key(key)
			foreign := prober{server: b.Addr(), key: tsigKey{name: dnsname.Canonical(k.Name), algorithm: k.Algorithm, secret: k.Secret}}
			rr, err := dns.NewRR(name + ". 60 IN TXT " + value)
			if err != nil {
				return err
			}
			m := new(dns.Msg).SetUpdate("example.test.")
			m.Insert([]dns.RR{rr})
			_, err = foreign.ask(ctx, m)
			return err
		},
	}
}

// products are the servers besides BIND that take updates.
func products() map[Product]func(context.Context, testbed.ProductConfig) (*testbed.Product, error) {
	return map[Product]func(context.Context, testbed.ProductConfig) (*testbed.Product, error){
		Knot:     testbed.StartKnot,
		PowerDNS: testbed.StartPowerDNS,
	}
}

func startProduct(t *testing.T, product Product, cfg testbed.ProductConfig) *testbed.Product {
	t.Helper()
	cfg.Dir = t.TempDir()
	p, err := products()[product](t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}
