package issuer_test

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// nonces collects the nonces that a CA gives.
type nonces struct {
	mu   sync.Mutex
	list []string
}

func (n *nonces) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		n.mu.Lock()
		defer n.mu.Unlock()
		if nonce := w.Header().Get("Replay-Nonce"); nonce != "" {
			n.list = append(n.list, nonce)
		}
	})
}

// TestTracer traces an issuance with an external account binding: all of it is there, and no secret is.
func TestTracer(t *testing.T) {
	const kid, mac = "kid-7", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	var out bytes.Buffer
	given := &nonces{}
	w := newWorld(t, testbed.CAConfig{EAB: map[string]string{kid: mac}, Wrap: given.wrap}, func(c *issuer.Config) {
		c.EAB = &issuer.EAB{KeyID: kid, HMACKey: mac}
		c.Transport = issuer.NewTracer(c.Roots, &out)
	})
	b, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"trace.example.test"}, Orders: &orders{}})
	if err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		"--> POST https://", "<-- 201 Created\n    Location: https://",
		`"termsOfServiceAgreed": true`, `"contact": [`, `"externalAccountBinding": "(redacted)"`,
		`"jwk": "(redacted)"`, `"nonce": "(redacted)"`, `"token": "(redacted)"`,
		`"value": "trace.example.test"`, `"csr": "`, `    payload {}`, string(bytes.ReplaceAll(bytes.TrimSpace(b.Leaf), []byte("\n"), []byte("\n    "))),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the trace lacks %q", want)
		}
	}
	secrets := append(given.list, kid, mac)
	account, _ := pem.Decode(w.Store.Objects[issuer.AccountKey("pebble", w.CA.Directory())+"/key.pem"])
	own, _ := pem.Decode(b.Key)
	secrets = append(secrets, base64.RawURLEncoding.EncodeToString(account.Bytes)[60:100], base64.StdEncoding.EncodeToString(own.Bytes)[60:100])
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the trace has %q", secret)
		}
	}
	if leak := regexp.MustCompile(`"(x|y|signature|kty)"`).FindString(text); leak != "" || len(given.list) < 5 {
		t.Errorf("the trace has %s, after %d nonces", leak, len(given.list))
	}
	if t.Failed() {
		fmt.Println(text)
	}
}

// TestTracerTellsOfSilence: what can't be reached is in the trace, too.
func TestTracerTellsOfSilence(t *testing.T) {
	var out bytes.Buffer
	w := newWorld(t, testbed.CAConfig{}, func(c *issuer.Config) { c.Transport = issuer.NewTracer(c.Roots, &out) })
	if err := w.CA.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Probe(t.Context()); err == nil || !strings.Contains(out.String(), "<-- no reply: ") {
		t.Errorf("the error is %v, and the trace %q", err, &out)
	}
}
