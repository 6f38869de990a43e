package testbed

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// pair starts a CA and the DNS server that it asks.
func pair(t testing.TB, cfg CAConfig) (*CA, *DNS) {
	t.Helper()
	d, err := StartDNS(DNSConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	cfg.DNS = d.Addr()
	c, err := StartCA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, d
}

// client is an ACME client with an account.
type client struct {
	*acme.Client
	account acme.Account
}

func newClient(t testing.TB, c *CA) *client {
	t.Helper()
	cl := &client{
		Client: &acme.Client{
			Directory:    c.Directory(),
			PollInterval: 20 * time.Millisecond,
			PollTimeout:  time.Minute,
			HTTPClient: &http.Client{
				Timeout:   30 * time.Second,
				Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.TLSRoots()}, MaxIdleConnsPerHost: 100},
			},
		},
		account: acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(t)},
	}
	t.Cleanup(cl.HTTPClient.CloseIdleConnections)
	return cl
}

func (cl *client) register(t testing.TB) *client {
	t.Helper()
	account, err := cl.NewAccount(t.Context(), cl.account)
	if err != nil {
		t.Fatal(err)
	}
	cl.account = account
	return cl
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// validate publishes and accepts the dns-01 challenge of every authorization of the order.
func (cl *client) validate(ctx context.Context, d *DNS, order acme.Order) error {
	for _, url := range order.Authorizations {
		authz, err := cl.GetAuthorization(ctx, cl.account, url)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(authz.Challenges, func(ch acme.Challenge) bool { return ch.Type == acme.ChallengeTypeDNS01 })
		if i < 0 {
			return fmt.Errorf("no dns-01 for %s in %+v", authz.IdentifierValue(), authz)
		}
		ch := authz.Challenges[i]
		if d != nil {
			if err := d.Set(fmt.Sprintf("%s. 60 IN TXT %q", ch.DNS01TXTRecordName(), ch.DNS01KeyAuthorization())); err != nil {
				return err
			}
		}
		if _, err := cl.InitiateChallenge(ctx, cl.account, ch); err != nil {
			return err
		}
		if _, err := cl.PollAuthorization(ctx, cl.account, authz); err != nil {
			return err
		}
	}
	return nil
}

// obtain drives an order to its chain, in PEM.
func (cl *client) obtain(ctx context.Context, d *DNS, order acme.Order) ([]byte, error) {
	order, err := cl.NewOrder(ctx, cl.account, order)
	if err != nil {
		return nil, err
	}
	if err := cl.validate(ctx, d, order); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, id := range order.Identifiers {
		names = append(names, id.Value)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		return nil, err
	}
	if order, err = cl.FinalizeOrder(ctx, cl.account, order, csr); err != nil {
		return nil, err
	}
	chains, err := cl.GetCertificateChain(ctx, cl.account, order.Certificate)
	if err != nil {
		return nil, err
	}
	return chains[0].ChainPEM, nil
}

func orderFor(names ...string) acme.Order {
	var order acme.Order
	for _, name := range names {
		order.Identifiers = append(order.Identifiers, acme.Identifier{Type: "dns", Value: name})
	}
	return order
}

func parseLeaf(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestCAManyOrders is the load under which Pebble alone stands still: 16 orders at once, several rounds.
func TestCAManyOrders(t *testing.T) {
	const parallel, rounds = 16, 4
	c, d := pair(t, CAConfig{})
	cl := newClient(t, c).register(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for worker := range parallel {
		wg.Go(func() {
			for round := range rounds {
				name := fmt.Sprintf("w%d-r%d.example.test", worker, round)
				if _, err := cl.obtain(ctx, d, orderFor(name, "*."+name)); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := c.NewOrders(); n != parallel*rounds && !t.Failed() {
		t.Errorf("%d new orders", n)
	}
}

func TestCAIssuance(t *testing.T) {
	t.Setenv("PEBBLE_AUTHZREUSE", "77")
	lifetimes := map[string]time.Duration{"long": 90 * 24 * time.Hour, "short": 10 * time.Minute}
	c, d := pair(t, CAConfig{Profiles: lifetimes, NonceRejectPercent: 20})
	if got := os.Getenv("PEBBLE_AUTHZREUSE"); got != "77" {
		t.Errorf("the environment was left changed: %q", got)
	}
	cl := newClient(t, c).register(t)
	root, err := c.IssuerRootPEM()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	for profile, lifetime := range lifetimes {
		order := orderFor(profile+".example.test", "*."+profile+".example.test")
		order.Profile = profile
		chain, err := cl.obtain(t.Context(), d, order)
		if err != nil {
			t.Fatalf("%s: %v", profile, err)
		}
		leaf := parseLeaf(t, chain)
		if got := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Minute); got != lifetime {
			t.Errorf("%s: lifetime %v", profile, got)
		}
		_, rest := pem.Decode(chain)
		intermediates := x509.NewCertPool()
		intermediates.AppendCertsFromPEM(rest)
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: profile + ".example.test", Roots: roots, Intermediates: intermediates}); err != nil {
			t.Errorf("%s: %v", profile, err)
		}
	}
	if requests := c.Requests(); c.NewOrders() != 2 || requests["newOrder"] < 2 || requests["finalize"] < 2 || requests["authorization"] < 4 {
		t.Errorf("counted %d orders, %v", c.NewOrders(), requests)
	}
}

func TestCAManagement(t *testing.T) {
	c, d := pair(t, CAConfig{})
	cl := newClient(t, c).register(t)
	chain, err := cl.obtain(t.Context(), d, orderFor("managed.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	leaf := parseLeaf(t, chain)
	start := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`,
		start.Format(time.RFC3339), start.Add(time.Hour).Format(time.RFC3339))
	if err := c.SetRenewalInfo(chain, window); err != nil {
		t.Fatal(err)
	}
	if info, err := cl.GetRenewalInfo(t.Context(), leaf); err != nil || !info.SuggestedWindow.Start.Equal(start) {
		t.Errorf("renewal window %+v, %v", info.SuggestedWindow, err)
	}
	serial := leaf.SerialNumber.Text(16)
	if status, err := c.CertStatus(serial); err != nil || status != "Valid" {
		t.Errorf("status %q, %v", status, err)
	}
	if err := cl.RevokeCertificate(t.Context(), cl.account, leaf, nil, acme.ReasonSuperseded); err != nil {
		t.Fatal(err)
	}
	if status, err := c.CertStatus(serial); err != nil || status != "Revoked" {
		t.Errorf("status %q, %v", status, err)
	}
	if status, err := c.CertStatus("abcdef"); err == nil {
		t.Errorf("a certificate that does not exist is %q", status)
	}
}

func TestCARefuses(t *testing.T) {
	var busy http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusTooManyRequests) }
	c, d := pair(t, CAConfig{
		EAB: map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
		Wrap: func(next http.Handler) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", next)
			mux.Handle("/revoke-cert", busy)
			return mux
		},
	})
	cl := newClient(t, c)
	if _, err := cl.NewAccount(t.Context(), cl.account); err == nil {
		t.Fatal("an account without external account binding")
	}
	eab := acme.EAB{KeyID: "kid-1", MACKey: "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
	if err := cl.account.SetExternalAccountBinding(t.Context(), cl.Client, eab); err != nil {
		t.Fatal(err)
	}
	cl.register(t)

	order, err := cl.NewOrder(t.Context(), cl.account, orderFor("unpublished.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.validate(t.Context(), nil, order); err == nil {
		t.Error("validated a name without a record")
	}
	chain, err := cl.obtain(t.Context(), d, orderFor("published.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.RevokeCertificate(t.Context(), cl.account, parseLeaf(t, chain), nil, acme.ReasonUnspecified); err == nil {
		t.Error("Wrap was not asked")
	}
	if _, err := StartCA(CAConfig{EAB: map[string]string{"kid": "not/base64url"}}); err == nil || strings.Contains(err.Error(), "not/base64url") {
		t.Errorf("a bad external account key: %v", err)
	}
}

// TestCALateChallenge accepts a challenge of an authorization that is no longer pending, which blocks Pebble alone.
func TestCALateChallenge(t *testing.T) {
	c, _ := pair(t, CAConfig{})
	cl := newClient(t, c).register(t)
	order, err := cl.NewOrder(t.Context(), cl.account, orderFor("late.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	authz, err := cl.GetAuthorization(t.Context(), cl.account, order.Authorizations[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.DeactivateAuthorization(t.Context(), cl.account, authz.Location); err != nil {
		t.Fatal(err)
	}
	for _, ch := range authz.Challenges {
		if _, err := cl.InitiateChallenge(t.Context(), cl.account, ch); err != nil {
			t.Errorf("%s: %v", ch.Type, err)
		}
	}
	if _, err := cl.GetOrder(t.Context(), cl.account, order); err != nil {
		t.Error(err)
	}
}

func BenchmarkCA(b *testing.B) {
	c, d := pair(b, CAConfig{})
	cl := newClient(b, c).register(b)
	cl.PollInterval = 20 * time.Millisecond
	names := make(chan string)
	go func() {
		defer close(names)
		for i := range b.N {
			names <- fmt.Sprintf("h%d.example.test", i)
		}
	}()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for name := range names {
				if _, err := cl.obtain(b.Context(), d, orderFor(name)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestAuthorizationsAreReused orders a name again whose control was proved, and later looks at the first order.
func TestAuthorizationsAreReused(t *testing.T) {
	for percent, want := range map[int]int{0: 0, 100: 300} {
		c, d := pair(t, CAConfig{AuthzReusePercent: percent})
		cl := newClient(t, c).register(t)
		first, err := cl.NewOrder(t.Context(), cl.account, orderFor("a.example.test"))
		if err == nil {
			err = cl.validate(t.Context(), d, first)
		}
		if err != nil {
			t.Fatal(err)
		}
		reused := 0
		for range 300 {
			order, err := cl.NewOrder(t.Context(), cl.account, orderFor("a.example.test"))
			if err != nil {
				t.Fatal(err)
			}
			if order.Authorizations[0] == first.Authorizations[0] {
				reused++
			}
		}
		if reused != want {
			t.Errorf("with %d %%, %d of 300 authorizations were reused, want %d", percent, reused, want)
		}
		if first, err = cl.GetOrder(t.Context(), cl.account, first); err != nil || first.Status != acme.StatusReady {
			t.Errorf("afterwards the first order is %s, %v", first.Status, err)
		}
	}
}
