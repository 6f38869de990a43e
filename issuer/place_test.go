package issuer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// undecided is a CA that shows the authorizations of one hostname as pending until it decides.
type undecided struct {
	hostname string
	decided  chan struct{}
	asked    chan struct{} // closed when the client was told of a pending one that was valid already
	once     sync.Once
}

func (u *undecided) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "authZ") {
			next.ServeHTTP(w, r)
			return
		}
		reply := httptest.NewRecorder()
		next.ServeHTTP(reply, r)
		maps.Copy(w.Header(), reply.Header())
		w.WriteHeader(reply.Code)
		w.Write(u.edit(reply.Body.Bytes()))
	})
}

func (u *undecided) edit(body []byte) []byte {
	var a map[string]any
	if !bytes.Contains(body, []byte(u.hostname)) || json.Unmarshal(body, &a) != nil || a["status"] != "valid" {
		return body
	}
	select {
	case <-u.decided:
		return body
	default:
	}
	u.once.Do(func() { close(u.asked) })
	a["status"] = "pending"
	edited, err := json.Marshal(a)
	if err != nil {
		return body
	}
	return edited
}

// TestUndecidedOrderKeepsNobodyOut has a place for one order, and a CA that takes its time over one.
func TestUndecidedOrderKeepsNobodyOut(t *testing.T) {
	u := &undecided{hostname: "slow.example.test", decided: make(chan struct{}), asked: make(chan struct{})}
	w := newWorld(t, testbed.CAConfig{Wrap: u.wrap}, func(c *issuer.Config) { c.Concurrency = 1 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	slow := make(chan error, 1)
	go func() {
		// The other name is valid long before.
		hostnames := []string{"beside.example.test", u.hostname}
		_, err := w.Obtain(ctx, issuer.Request{Hostnames: hostnames, Orders: &orders{}})
		slow <- err
	}()
	select {
	case <-u.asked:
	case err := <-slow:
		t.Fatal("the slow order ended before it was decided: ", err)
	}
	if _, err := w.Obtain(ctx, issuer.Request{Hostnames: []string{"quick.example.test"}, Orders: &orders{}}); err != nil {
		t.Fatal("the quick order: ", err)
	}
	close(u.decided)
	if err := <-slow; err != nil {
		t.Fatal("the slow order: ", err)
	}
}
