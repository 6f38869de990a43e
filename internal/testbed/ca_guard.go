package testbed

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
)

// maxRequest bounds what a client may send.
const maxRequest = 1 << 20

// guard stands in front of Pebble's ACME handler and keeps it from blocking for ever. Pebble's handlers take the locks
// of the store, of orders and of authorizations in different orders, some take a read lock twice, and one forgets to
// release some. Alone it stands still within a few hundred orders when 16 run at once. So guard
//
//   - lets in one request at a time,
//   - holds a finalize request until the certificate is there, since a poll at that very moment may block, and
//   - releases the read locks of challenges that the authorization handler leaves behind, which would block whoever
//     accepts or validates a challenge of an authorization that is no longer pending.
//
// Requests are short and validations run outside, so throughput stays as it was: about 200 orders a second on two cores.
// One gap is left, less than a microsecond wide: an order that is polled at the moment when its validation fails.
//
// With proves, it also keeps Pebble from letting an old authorization stand in for a new one.
type guard struct {
	store   *db.MemoryStore
	handler http.Handler
	proves  bool // each order proves control of all its names

	mu        sync.Mutex
	requests  map[string]int
	newOrders int
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Neither a slow sender nor a slow reader may keep others out.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	reply := g.serve(r, body)
	for name, values := range reply.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(reply.Code)
	w.Write(reply.Body.Bytes())
}

func (g *guard) serve(r *http.Request, body []byte) *httptest.ResponseRecorder {
	g.mu.Lock()
	defer g.mu.Unlock()
	kind, id := split(r.URL.Path)
	g.requests[kind]++
	reply := httptest.NewRecorder()
	if kind == "newOrder" && g.proves {
		defer g.hideAuthorizations(body)()
	}
	g.handler.ServeHTTP(reply, r)
	switch {
	case kind == "newOrder" && reply.Code == http.StatusCreated:
		g.newOrders++
	case kind == "finalize" && reply.Code == http.StatusOK:
		g.awaitCertificate(id)
	case kind == "authorization" && reply.Code == http.StatusOK:
		g.releaseChallenges(id, reply.Body.Bytes())
	}
	return reply
}

// Kind says in words of RFC 8555 what a path of the CA is for: the names of the directory (section 7.1.1), and besides
// directory, account, order, finalize, authorization, challenge and certificate.
func Kind(path string) string {
	kind, _ := split(path)
	return kind
}

// split says in words of RFC 8555 what a path of Pebble's is for, and which object it names.
func split(path string) (kind, id string) {
	first, id, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "dir":
		return "directory", id
	case "nonce-plz":
		return "newNonce", id
	case "sign-me-up":
		return "newAccount", id
	case "my-account":
		return "account", id
	case "order-plz":
		return "newOrder", id
	case "my-order":
		return "order", id
	case "finalize-order":
		return "finalize", id
	case "authZ":
		return "authorization", id
	case "chalZ":
		return "challenge", id
	case "certZ":
		return "certificate", id
	case "revoke-cert":
		return "revokeCert", id
	case "rollover-account-key":
		return "keyChange", id
	case "draft-ietf-acme-ari-03":
		return "renewalInfo", id
	}
	return first, id
}

// hideAuthorizations makes the valid authorizations look expired that Pebble could use again for a new order, until restore
// is called. What isn't a request for an order hides none; the handler says so.
func (g *guard) hideAuthorizations(body []byte) (restore func()) {
	expires := map[*core.Authorization]time.Time{}
	account, identifiers := parseNewOrder(body)
	for _, ident := range identifiers {
		for authz := g.store.FindValidAuthorization(account, ident); authz != nil; authz = g.store.FindValidAuthorization(account, ident) {
			authz.Lock()
			expires[authz], authz.ExpiresDate = authz.ExpiresDate, time.Time{}
			authz.Unlock()
		}
	}
	return func() {
		for authz, at := range expires {
			authz.Lock()
			authz.ExpiresDate = at
			authz.Unlock()
		}
	}
}

// parseNewOrder returns the account and the identifiers of a request for a new order (RFC 8555, section 7.4), without a look
// at its signature.
func parseNewOrder(body []byte) (account string, identifiers []acme.Identifier) {
	var request struct{ Protected, Payload string }
	var header struct{ Kid string }
	var payload struct{ Identifiers []acme.Identifier }
	if json.Unmarshal(body, &request) != nil {
		return "", nil
	}
	protected, _ := base64.RawURLEncoding.DecodeString(request.Protected)
	order, _ := base64.RawURLEncoding.DecodeString(request.Payload)
	if json.Unmarshal(protected, &header) != nil || json.Unmarshal(order, &payload) != nil {
		return "", nil
	}
	return path.Base(header.Kid), payload.Identifiers
}

// awaitCertificate returns when the order has its certificate and others can replace it, or soon if that fails.
func (g *guard) awaitCertificate(id string) {
	order := g.store.GetOrderByID(id)
	for range 40000 {
		order.RLock()
		cert := order.CertificateObject
		order.RUnlock()
		if cert != nil {
			if _, err := g.store.GetOrderByIssuedSerial(cert.ID); err == nil {
				return
			}
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// releaseChallenges undoes what Pebble's handler forgets: it read-locks every challenge of the authorization, and
// releases those alone that it lists in its reply.
func (g *guard) releaseChallenges(id string, reply []byte) {
	var authz struct{ Challenges []struct{ URL string } }
	if json.Unmarshal(reply, &authz) != nil {
		return
	}
	listed := map[string]bool{}
	for _, c := range authz.Challenges {
		listed[c.URL] = true
	}
	for _, c := range g.store.GetAuthorizationByID(id).Challenges {
		if !listed[c.URL] {
			c.RUnlock()
		}
	}
}
