package issuer_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// silent is the way to a CA that doesn't answer, unless Answers is set. Held requests wait until it is closed.
type silent struct {
	Base    http.RoundTripper
	Answers atomic.Bool
	Held    chan struct{}
	asked   atomic.Int32
}

func (s *silent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	if s.Answers.Load() {
		return s.Base.RoundTrip(r)
	}
	<-s.Held
	return nil, errLost
}

// silentWorld has a CA that doesn't answer.
func silentWorld(t *testing.T) (*world, *silent) {
	t.Helper()
	way := &silent{Held: make(chan struct{})}
	w := newWorld(t, testbed.CAConfig{}, func(c *issuer.Config) {
		base := http.DefaultTransport.(*http.Transport).Clone()
		base.TLSClientConfig = clientTLS(c.Roots)
		way.Base, c.Transport = base, way
	})
	return w, way
}

// libraryTries is how often the ACME library sends a request that isn't answered.
const libraryTries = 3

// TestSilentCA: while a CA doesn't answer, nobody waits for it who can go elsewhere. Who can't asks it all the same, and
// its first certificate ends that.
func TestSilentCA(t *testing.T) {
	w, way := silentWorld(t)
	var group sync.WaitGroup
	var lost, spared atomic.Int32
	for range 8 {
		group.Go(func() {
			_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"s.example.test"}, Orders: &orders{}, HasFallback: true})
			switch {
			case err == nil:
				t.Error("there is a certificate")
			case strings.Contains(err.Error(), "not asked before"):
				spared.Add(1)
			case errors.Is(err, errLost):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	close(way.Held)
	group.Wait()
	if asked := way.asked.Load(); lost.Load() != 1 || spared.Load() != 7 || asked > libraryTries {
		t.Errorf("%d orders asked with %d requests, %d went elsewhere", lost.Load(), asked, spared.Load())
	}

	request := issuer.Request{Hostnames: []string{"s.example.test"}, Orders: &orders{}}
	before := way.asked.Load()
	if _, err := w.Obtain(t.Context(), request); !errors.Is(err, errLost) || way.asked.Load() == before {
		t.Errorf("without another CA this one isn't asked: %v", err)
	}
	way.Answers.Store(true)
	for _, spare := range []bool{false, true} {
		request.HasFallback = spare
		if _, err := w.Obtain(t.Context(), request); err != nil {
			t.Error(err)
		}
	}
}

// TestRefusalIsNoSilence: what a CA says to one order is no reason to keep others from it.
func TestRefusalIsNoSilence(t *testing.T) {
	for _, tt := range []struct {
		what   string
		status int
		kind   string
		spared bool
	}{
		{"a name that it doesn't issue for", 400, "rejectedIdentifier", false},
		{"a limit of the account", 429, "rateLimited", false},
		{"it is overloaded", 503, "serverInternal", true},
		{"it is broken", 500, "serverInternal", true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t, testbed.CAConfig{Wrap: answer("order-plz", tt.status, "", tt.kind)}, nil)
			request := issuer.Request{Hostnames: []string{"r.example.test"}, Orders: &orders{}, HasFallback: true}
			for n := range 2 {
				_, err := w.Obtain(t.Context(), request)
				if err == nil {
					t.Fatal("there is a certificate")
				}
				if spared := strings.Contains(err.Error(), "not asked before"); spared != (n > 0 && tt.spared) {
					t.Errorf("order %d: %v", n+1, err)
				}
			}
		})
	}
}
