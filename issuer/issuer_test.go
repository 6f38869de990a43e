package issuer_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/cure"
	"autocertd/internal/store/storetest"
	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// zoneSolver publishes into the test's DNS server and notes what it was asked for.
type zoneSolver struct {
	DNS       *testbed.DNS
	Spoil     bool  // publish other values
	PublishOK error // what Publish returns
	// SpoilNames are records that get other values.
	SpoilNames []string

	mu        sync.Mutex
	Published []string // names
	Active    int      // solutions without Remove
}

func (z *zoneSolver) Begin() issuer.Solution {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.Active++
	return &zoneSolution{z: z}
}

type zoneSolution struct {
	z       *zoneSolver
	removed bool
}

func (s *zoneSolution) Publish(_ context.Context, records []issuer.Record) error {
	if s.z.PublishOK != nil {
		return s.z.PublishOK
	}
	for _, r := range records {
		value := r.Value
		if s.z.Spoil || slices.Contains(s.z.SpoilNames, r.Name) {
			value = "spoiled"
		}
		if err := s.z.DNS.Set(fmt.Sprintf("%s. 60 IN TXT %q", r.Name, value)); err != nil {
			return err
		}
		s.z.mu.Lock()
		s.z.Published = append(s.z.Published, r.Name)
		s.z.mu.Unlock()
	}
	return nil
}

func (s *zoneSolution) Wait(_ context.Context, seen func(have, want int)) error {
	seen(1, 1)
	return nil
}

func (s *zoneSolution) Remove() {
	s.z.mu.Lock()
	defer s.z.mu.Unlock()
	if !s.removed {
		s.removed = true
		s.z.Active--
	}
}

// memory is a Storage that lasts as long as the test.
type memory = storetest.Memory

// orders is an OrderKeeper that lasts as long as the test.
type orders struct {
	Open  *issuer.OpenOrder
	Drops int
}

func (o *orders) Keep(_ context.Context, order issuer.OpenOrder) error {
	order.Hostnames = slices.Clone(order.Hostnames)
	o.Open = &order
	return nil
}

func (o *orders) Drop(context.Context) error {
	o.Open = nil
	o.Drops++
	return nil
}

// world is a CA, its DNS, and an issuer for them.
type world struct {
	*issuer.Issuer
	CA     *testbed.CA
	DNS    *testbed.DNS
	Solver *zoneSolver
	Store  *memory
	Config issuer.Config
}

func newWorld(t *testing.T, ca testbed.CAConfig, change func(*issuer.Config)) *world {
	t.Helper()
	dns, err := testbed.StartDNS(testbed.DNSConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	ca.DNS = dns.Addr()
	server, err := testbed.StartCA(ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	w := &world{CA: server, DNS: dns, Solver: &zoneSolver{DNS: dns}, Store: &memory{}}
	w.Config = issuer.Config{Name: "pebble", Directory: server.Directory(), AcceptTerms: true, Email: "admin@example.org",
		Roots: certificates(t, server.TLSRootsPEM()), Storage: w.Store, Solver: w.Solver, UserAgent: "autocertd/test"}
	if change != nil {
		change(&w.Config)
	}
	w.restart(t)
	return w
}

// restart is what a new process would have: the same storage, a new issuer.
func (w *world) restart(t *testing.T) {
	t.Helper()
	iss, err := issuer.New(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(iss.Close)
	w.Issuer = iss
}

func certificates(t *testing.T, text []byte) (list []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, cert)
	}
	return list
}

func TestObtain(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	for _, tt := range []struct {
		keyType   issuer.KeyType
		hostnames []string
		key       string
	}{
		{issuer.ECDSAP256, []string{"one.example.test"}, "ECDSA"},
		{issuer.ECDSAP384, []string{"two.example.test", "three.example.test"}, "ECDSA"},
		{issuer.RSA2048, []string{"example.test", "*.example.test"}, "RSA"},
	} {
		t.Run(string(tt.keyType), func(t *testing.T) {
			var steps []issuer.StepName
			keep := &orders{}
			b, err := w.Obtain(t.Context(), issuer.Request{Hostnames: tt.hostnames, KeyType: tt.keyType, Orders: keep,
				Progress: func(s issuer.Step) { steps = append(steps, s.Name) }})
			if err != nil {
				t.Fatal(err)
			}
			if want := []issuer.StepName{issuer.Ordered, issuer.Published, issuer.Seen, issuer.Validated, issuer.Issued}; !slices.Equal(steps, want) {
				t.Errorf("steps %v, want %v", steps, want)
			}
			if keep.Open == nil || keep.Open.Key != string(b.Key) {
				t.Error("the open order isn't kept until the bundle is saved")
			}
			if got := b.Cert.PublicKeyAlgorithm.String(); got != tt.key {
				t.Errorf("a certificate for an %s key, want %s", got, tt.key)
			}
			checkChain(t, w.CA, b, tt.hostnames)
		})
	}
	if w.Solver.Active != 0 {
		t.Errorf("%d orders never removed their records", w.Solver.Active)
	}
	if n := w.CA.Requests()["newAccount"]; n != 1 {
		t.Errorf("%d accounts were registered, want 1", n)
	}
}

func checkChain(t *testing.T, ca *testbed.CA, b *issuer.Bundle, hostnames []string) {
	t.Helper()
	root, err := ca.IssuerRootPEM()
	if err != nil {
		t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	between.AppendCertsFromPEM(b.Chain)
	if _, err := b.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		t.Errorf("the chain doesn't verify: %v", err)
	}
	got, want := slices.Sorted(slices.Values(b.Cert.DNSNames)), slices.Sorted(slices.Values(hostnames))
	if !slices.Equal(got, want) {
		t.Errorf("hostnames %v, want %v", got, want)
	}
}

func TestConcurrentOrdersShareOneAccount(t *testing.T) {
	w := newWorld(t, testbed.CAConfig{}, nil)
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			if _, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{fmt.Sprintf("c%d.example.test", n)}, Orders: &orders{}}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := w.CA.Requests()["newAccount"]; n != 1 {
		t.Errorf("%d accounts were registered, want 1", n)
	}
}

// dropReply performs the first request whose path holds Path, and loses the reply.
type dropReply struct {
	Base http.RoundTripper
	Path string
	mu   sync.Mutex
	done bool
}

var errLost = errors.New("connection lost")

func (d *dropReply) RoundTrip(req *http.Request) (*http.Response, error) {
	d.mu.Lock()
	mine := !d.done && strings.Contains(req.URL.Path, d.Path)
	d.done = d.done || mine
	d.mu.Unlock()
	resp, err := d.Base.RoundTrip(req)
	if err == nil && mine {
		resp.Body.Close()
		return nil, errLost
	}
	return resp, err
}

// TestResume lets an attempt die at each step, after the step took effect at the CA, and holds the next process to
// going on with the same order.
func TestResume(t *testing.T) {
	tests := []struct {
		name string
		die  func(w *world, cancel context.CancelFunc, s issuer.Step)
	}{
		{"order kept, nothing published", func(_ *world, cancel context.CancelFunc, s issuer.Step) {
			if s.Name == issuer.Ordered {
				cancel()
			}
		}},
		{"records published", func(_ *world, cancel context.CancelFunc, s issuer.Step) {
			if s.Name == issuer.Published {
				cancel()
			}
		}},
		{"challenge validated", func(_ *world, cancel context.CancelFunc, s issuer.Step) {
			if s.Name == issuer.Validated {
				cancel()
			}
		}},
		{"certificate issued but not saved", func(_ *world, cancel context.CancelFunc, s issuer.Step) {
			if s.Name == issuer.Issued {
				cancel()
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, testbed.CAConfig{}, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			keep := &orders{}
			request := issuer.Request{Hostnames: []string{"r.example.test", "q.example.test"}, Orders: keep}
			request.Progress = func(s issuer.Step) { tt.die(w, cancel, s) }
			_, _ = w.Obtain(ctx, request) // the last row has got its certificate, and loses it
			if keep.Open == nil {
				t.Fatal("the open order is forgotten")
			}
			w.restart(t)
			resumed := false
			request.Open = keep.Open
			slices.Reverse(request.Hostnames) // their order in the configuration means nothing
			request.Progress = func(s issuer.Step) { resumed = resumed || s.Name == issuer.Resumed }
			b, err := w.Obtain(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			checkChain(t, w.CA, b, request.Hostnames)
			if !resumed || w.CA.NewOrders() != 1 || string(b.Key) != keep.Open.Key {
				t.Errorf("resumed %v, %d orders at the CA; want the one order resumed with its key", resumed, w.CA.NewOrders())
			}
		})
	}
}

// TestLostReplies loses the reply of one request of an issuance. The same attempt, or one more, must end with the
// certificate, and with one order more than needed at most.
func TestLostReplies(t *testing.T) {
	for _, path := range []string{"nonce", "sign-me-up", "order-plz", "authZ", "chalZ", "finalize", "my-order", "certZ"} {
		t.Run(path, func(t *testing.T) {
			w := newWorld(t, testbed.CAConfig{}, func(c *issuer.Config) {
				base := http.DefaultTransport.(*http.Transport).Clone()
				base.TLSClientConfig = clientTLS(c.Roots)
				c.Transport = &dropReply{Base: base, Path: path}
			})
			keep := &orders{}
			request := issuer.Request{Hostnames: []string{"l.example.test"}, Orders: keep}
			b, err := w.Obtain(t.Context(), request)
			if err != nil {
				t.Logf("first attempt: %v", err)
				request.Open = keep.Open
				if b, err = w.Obtain(t.Context(), request); err != nil {
					t.Fatal(err)
				}
			}
			checkChain(t, w.CA, b, request.Hostnames)
			if n := w.CA.NewOrders(); n > 2 {
				t.Errorf("%d orders at the CA, want at most 2", n)
			}
		})
	}
}

// said is an error as a person reads it.
func said(err error) string {
	if text := cure.Of(err); text != "" {
		return err.Error() + "; " + text
	}
	return err.Error()
}
