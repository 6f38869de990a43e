package lifecycle

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/testbed"
)

// dropping is a proxy before a CA that passes one request on and drops the reply: the connection ends, as when a firewall
// restarts. It counts the certificates that the CA issues.
type dropping struct {
	Path string // of the requests that are meant; "" for none
	Skip int    // so many of them get their replies before

	mu      sync.Mutex
	seen    int
	dropped bool
	orders  map[string]bool // those that were finalized, by path
}

func (d *dropping) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		reply := httptest.NewRecorder()
		next.ServeHTTP(reply, r)
		if d.drops(r, reply.Code) {
			panic(http.ErrAbortHandler)
		}
		for key, values := range reply.Header() {
			rw.Header()[key] = values
		}
		rw.WriteHeader(reply.Code)
		_, _ = rw.Write(reply.Body.Bytes()) // a client that has gone needs nothing
	})
}

// drops notes a reply, and says whether it gets lost.
func (d *dropping) drops(r *http.Request, status int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.Contains(r.URL.Path, "/finalize-order/") && status == http.StatusOK {
		if d.orders == nil {
			d.orders = map[string]bool{}
		}
		d.orders[r.URL.Path] = true
	}
	if d.dropped || d.Path == "" || r.Method != http.MethodPost || !strings.Contains(r.URL.Path, d.Path) {
		return false
	}
	d.seen++
	d.dropped = d.seen > d.Skip
	return d.dropped
}

func (d *dropping) issued() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.orders)
}

// TestLostReplies drops the reply of each request of an issuance in turn. The same look goes on to one certificate, at the
// CA and on disk, and there was one order more than needed at most.
func TestLostReplies(t *testing.T) {
	for _, tt := range []struct {
		reply  string // that is lost
		path   string
		skip   int
		orders int // at most
	}{
		{"new account", "/sign-me-up", 0, 1},
		{"new order", "/order-plz", 0, 2},
		{"authorization", "/authZ/", 0, 1},
		{"challenge", "/chalZ/", 0, 1},
		{"authorization, polled", "/authZ/", 1, 1},
		{"finalize", "/finalize-order/", 0, 1},
		{"order, polled", "/my-order/", 0, 1},
		{"certificate", "/certZ/", 0, 1},
	} {
		t.Run(tt.reply, func(t *testing.T) {
			t.Parallel()
			proxy := &dropping{Path: tt.path, Skip: tt.skip}
			w := newWorld(t, testbed.CAConfig{Wrap: proxy.wrap})
			p := w.start()
			p.look()
			p.end()
			if !proxy.dropped {
				t.Fatal("no reply was lost")
			}
			if n := proxy.issued(); n != 1 {
				t.Errorf("the CA issued %d certificates", n)
			}
			w.heals(w.cas[0], tt.orders)
		})
	}
}
