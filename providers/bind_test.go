package providers

import (
	"context"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/testbed"
	"autocertd/providers/providertest"
)

// bindHarness is the side doors to zone example.test of a real BIND, by one of its keys.
func bindHarness(b *testbed.BIND, key string, client Client) providertest.Harness {
	return providertest.Harness{
		Client: client,
		Zone:   "example.test",
		TXT:    func(ctx context.Context) (map[string][]string, error) { return b.TXT(ctx, "example.test") },
		TTL:    func(ctx context.Context, name string) (time.Duration, error) { return askTTL(ctx, b.Addr(), name) },
		Put: func(ctx context.Context, name, value string) error {
			k := b.Key(key)
			foreign := prober{server: b.Addr(), key: tsigKey{name: plainName(k.Name), secret: k.Secret}}
			rr, err := dns.NewRR(name + ". 60 IN TXT " + value)
			if err != nil {
				return err
			}
			m := new(dns.Msg).SetUpdate("example.test.")
			m.Insert([]dns.RR{rr})
			_, err = foreign.ask(ctx, m, k.Algorithm)
			return err
		},
	}
}
