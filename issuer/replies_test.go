package issuer

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mholt/acmez/v3/acme"
)

// TestReadObject: what is of no use doesn't decide, and what is nearly right is understood.
func TestReadObject(t *testing.T) {
	tests := []struct {
		name     string
		shape    shape
		in, want string // want "" stands for an error
	}{
		{"all that is used stays", orderShape(), `{"status":"pending","authorizations":["https://ca/1"],"finalize":"https://ca/f"}`,
			`{"authorizations":["https://ca/1"],"finalize":"https://ca/f","status":"pending"}`},
		{"what isn't used goes", authorizationShape(), `{"status":"valid","challenges":[{"type":"dns-01","keyAuthorization":"x","validated":7,"from":{}}]}`,
			`{"challenges":[{"type":"dns-01"}],"status":"valid"}`},
		{"a list in place of a text", accountShape(), `{"status":"valid","orders":["https://ca/x"]}`, `{"status":"valid"}`},
		{"a text in place of a list", accountShape(), `{"contact":"mailto:a@b"}`, `{}`},
		{"items of another type", orderShape(), `{"authorizations":[1,"https://ca/1",null]}`, `{"authorizations":["https://ca/1"]}`},
		{"a time that is empty", orderShape(), `{"notBefore":"","notAfter":null,"expires":"never"}`, `{}`},
		{"a time without a colon", orderShape(), `{"expires":"2026-12-05T01:00:00+0100"}`, `{"expires":"2026-12-05T00:00:00Z"}`},
		{"a boolean as a text", authorizationShape(), `{"wildcard":"true"}`, `{"wildcard":true}`},
		{"a boolean as a number", authorizationShape(), `{"wildcard":1}`, `{}`},
		{"one CAA identity", directoryShape(), `{"meta":{"caaIdentities":"ca.test","externalAccountRequired":"no"}}`, `{"meta":{"caaIdentities":["ca.test"]}}`},
		{"an identity that isn't a name", directoryShape(), `{"meta":{"caaIdentities":["ca.test","x\" ; y"]}}`, `{"meta":{"caaIdentities":["ca.test"]}}`},
		{"a status as a text", problemShape(), `{"status":"400","detail":"no\u001b[2J\nway"}`, `{"detail":"no[2J way","status":400}`},
		{"a status that is none", problemShape(), `{"status":"bad"}`, `{}`},
		{"names in another case", orderShape(), `{"STATUS":"valid"}`, `{}`},
		{"null", orderShape(), `null`, ""},
		{"a list", orderShape(), `[]`, ""},
		{"nothing", orderShape(), ``, ""},
		{"HTML", orderShape(), `<html>`, ""},
	}
	for _, tt := range tests {
		got, err := readObject([]byte(tt.in), tt.shape)
		if (err != nil) != (tt.want == "") || string(got) != tt.want {
			t.Errorf("%s: got %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestReadProblem(t *testing.T) {
	p, said, ok := readProblem(http.StatusForbidden, []byte(`{"type":"urn:ietf:params:acme:error:caa","status":"x"}`))
	if !ok || said != "" || p.Status != http.StatusForbidden || p.Type != acme.ProblemTypeCAA {
		t.Errorf("got %+v, %q, %t", p, said, ok)
	}
	for _, body := range []string{"", "{}", "<h1>\x1b[2Jdown</h1>", "[1]", "null"} {
		if _, said, ok := readProblem(http.StatusBadGateway, []byte(body)); ok || strings.Contains(said, "\x1b") {
			t.Errorf("%q is taken for a problem document, or said as %q", body, said)
		}
	}
}

func TestAssign(t *testing.T) {
	authz := func(value string, wildcard bool) acme.Authorization {
		return acme.Authorization{Identifier: acme.Identifier{Type: "dns", Value: value}, Wildcard: wildcard}
	}
	tests := []struct {
		name   string
		has    []acme.Authorization
		orders []string
		want   string // the names; "" stands for an error
	}{
		{"one", []acme.Authorization{authz("a.test", false)}, []string{"a.test"}, "a.test"},
		{"in capitals, with a dot", []acme.Authorization{authz("A.Test.", false)}, []string{"a.test"}, "a.test"},
		{"a wildcard", []acme.Authorization{authz("a.test", true)}, []string{"*.a.test"}, "*.a.test"},
		{"a wildcard without its mark", []acme.Authorization{authz("a.test", false)}, []string{"*.a.test"}, "*.a.test"},
		{"a wildcard in the name", []acme.Authorization{authz("*.a.test", true)}, []string{"*.a.test"}, "*.a.test"},
		{"both", []acme.Authorization{authz("a.test", true), authz("a.test", false)}, []string{"a.test", "*.a.test"}, "*.a.test a.test"},
		{"both without a mark", []acme.Authorization{authz("a.test", false), authz("a.test", false)}, []string{"*.a.test", "a.test"}, "a.test *.a.test"},
		{"fewer than names", []acme.Authorization{authz("b.test", false)}, []string{"a.test", "b.test"}, "b.test"},
		{"another name", []acme.Authorization{authz("b.test", false)}, []string{"a.test"}, ""},
		{"one below", []acme.Authorization{authz("x.a.test", false)}, []string{"*.a.test"}, ""},
		{"the zone", []acme.Authorization{authz("test", false)}, []string{"a.test"}, ""},
		{"a wildcard that wasn't ordered", []acme.Authorization{authz("a.test", true)}, []string{"a.test"}, ""},
		{"one twice", []acme.Authorization{authz("a.test", false), authz("a.test", false)}, []string{"a.test", "b.test"}, ""},
		{"of another type", []acme.Authorization{{Identifier: acme.Identifier{Type: "ip", Value: "a.test"}}}, []string{"a.test"}, ""},
	}
	for _, tt := range tests {
		err := assign(tt.has, tt.orders)
		var got []string
		for _, a := range tt.has {
			got = append(got, a.IdentifierValue())
		}
		if (err != nil) != (tt.want == "") || err == nil && strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestLinks(t *testing.T) {
	headers := []string{`<https://ca/up>;rel="up"`, `</alt/1>;rel="alternate", <https://ca/2>; title="x"; rel=alternate`, `broken`, `<https://ca/3`}
	req, err := http.NewRequest(http.MethodPost, "https://ca/cert/0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(links(req.URL, headers, "alternate"), " "); got != "https://ca/alt/1 https://ca/2" {
		t.Errorf("got %s", got)
	}
}

// TestBounds: an order may take much of a CA, and not everything.
func TestBounds(t *testing.T) {
	s := &spent{names: 2}
	for n := range orderRequests + 2*nameRequests {
		if err := s.request(); err != nil {
			t.Fatalf("request %d: %v", n, err)
		}
	}
	if err := s.request(); err == nil || !strings.Contains(err.Error(), "400 requests for one order") {
		t.Errorf("one request too many: %v", err)
	}
	s = &spent{names: 1}
	s.time.Add(int64(orderTime + nameTime))
	if err := s.request(); err != nil {
		t.Errorf("there is time left: %v", err)
	}
	s.time.Add(int64(time.Second))
	if err := s.request(); err == nil || !strings.Contains(err.Error(), "11m0s") {
		t.Errorf("there is no time left: %v", err)
	}
}

// TestLost: which request the library may repeat after its reply was lost.
func TestLost(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	slow := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	tests := []struct {
		name    string
		lasting bool
		losses  []error
		ended   bool
	}{
		{"a connection broke", false, []error{io.EOF, io.EOF}, false},
		{"connections break", false, []error{io.EOF, io.EOF, io.EOF}, true},
		{"nobody is there", true, []error{dial, dial}, false},
		{"a new order was lost", true, []error{io.EOF}, false},
		{"a new order was lost again", true, []error{io.EOF, io.EOF}, true},
		{"nothing came for half a minute", false, []error{slow}, true},
		{"the time was over", false, []error{context.DeadlineExceeded}, true},
	}
	for _, tt := range tests {
		ctx, stop := context.WithCancelCause(t.Context())
		c := &libraryCall{lasting: tt.lasting, stop: stop}
		for _, err := range tt.losses {
			_ = c.lost(&http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: "ca"}}, err) // what the library gets; that it is asked no more counts
		}
		if ended := ctx.Err() != nil; ended != tt.ended {
			t.Errorf("%s: it was ended: %t, want %t", tt.name, ended, tt.ended)
		}
		stop(nil)
	}
}

func TestAllowed(t *testing.T) {
	c := newClient(Config{Name: "x", Directory: "https://CA.example.net/dir", Hosts: []string{"other.example.net:443", "[2001:db8::1]:8443"}}, nil)
	for url, want := range map[string]bool{
		"https://ca.example.net/acct/1":        true,
		"https://ca.example.net:443/acct/1":    true,
		"https://CA.Example.Net./acct/1":       true,
		"https://other.example.net/x":          true,
		"https://[2001:db8::1]:8443/x":         true,
		"http://ca.example.net/acct/1":         false,
		"https://ca.example.net:444/acct/1":    false,
		"https://example.net/":                 false,
		"https://ca.example.net.evil.test/":    false,
		"https://ca.example.net@evil.test/":    false,
		"https://user@ca.example.net/":         false,
		"https://[2001:db8::1]/x":              false,
		"//ca.example.net/x":                   false,
		"/x":                                   false,
		"file:///etc/passwd":                   false,
		"https://ca.example.net/\u202e":        false,
		"https://ca.example.net/ x":            false,
		"":                                     false,
		"https://ca.example.net/" + long(3000): false,
	} {
		if err := c.leads(url); (err == nil) != want {
			t.Errorf("%.60s: %v, want it allowed to be %t", url, err, want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// fuzzed checks what holds for every text of a CA that is shown.
func fuzzed(t *testing.T, text string) {
	t.Helper()
	if len(text) > maxText+len(" …") || !utf8.ValidString(text) {
		t.Fatalf("%d bytes: %.100q", len(text), text)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			t.Fatalf("%q holds %q", text, r)
		}
	}
}

// FuzzReply reads what a CA may send as each kind of object. The library must be able to read what is left of it.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"status":"pending","expires":"2026-12-05T00:00:00+0000","identifiers":[{"type":"dns","value":"a.test"}],"authorizations":["https://ca/1"],"finalize":"https://ca/f","notBefore":"","error":{"status":"400","detail":"no","subproblems":[{"identifier":{"type":"dns","value":"x"}}]}}`))
	f.Add([]byte(`{"identifier":{"type":"dns","value":"a.test"},"status":"pending","challenges":[{"type":"dns-01","url":"https://ca/c","token":"abc","keyAuthorization":"x","error":{"type":7}}],"wildcard":"true"}`))
	f.Add([]byte(`{"newOrder":"https://ca/o","meta":{"profiles":{"a":"b"},"caaIdentities":"ca.test","termsOfService":"x"}}`))
	f.Add([]byte(`{"contact":["mailto:x"],"orders":[1]}`))
	f.Add([]byte(`{"suggestedWindow":{"start":"2026-01-02T00:00:00Z","end":""}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range []struct {
			shape shape
			into  any
		}{
			{directoryShape(), &acme.Directory{}}, {accountShape(), &acme.Account{}}, {orderShape(), &acme.Order{}},
			{authorizationShape(), &acme.Authorization{}}, {challengeShape(), &acme.Challenge{}}, {renewalShape(), &acme.RenewalInfo{}},
		} {
			clean, err := readObject(body, kind.shape)
			if err != nil {
				continue
			}
			if err := json.Unmarshal(clean, kind.into); err != nil {
				t.Fatalf("the library can't read %s: %v", clean, err)
			}
			again, err := readObject(clean, kind.shape)
			if err != nil || string(again) != string(clean) {
				t.Fatalf("%s is read as %s the second time (%v)", clean, again, err)
			}
			if a, ok := kind.into.(*acme.Authorization); ok {
				if assign([]acme.Authorization{*a}, []string{"a.test"}) == nil && strings.TrimSuffix(strings.ToLower(a.Identifier.Value), ".") != "a.test" {
					t.Fatalf("an authorization for %q is taken for one of a.test", a.Identifier.Value)
				}
				for _, c := range a.Challenges {
					if c.KeyAuthorization != "" {
						t.Fatalf("the CA chose the key authorization %q", c.KeyAuthorization)
					}
				}
			}
		}
		p, said, ok := readProblem(http.StatusForbidden, body)
		if ok {
			said = (&problemError{p}).Error()
		}
		fuzzed(t, said)
	})
}

// FuzzChain reads what a CA may send as a certificate chain. Whatever that is, a key that it isn't for gets nothing.
func FuzzChain(f *testing.F) {
	key, err := newKey(ECDSAP256)
	if err != nil {
		f.Fatal(err)
	}
	other, err := newKey(ECDSAP256)
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, Subject: pkix.Name{CommonName: "a\x1b[2J"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	f.Add(text)
	f.Add(append(text, text...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := parseChain(text)
		if err != nil {
			return
		}
		if len(certs) > longestChain {
			t.Fatalf("%d certificates", len(certs))
		}
		if _, err := arrange(certs, other.Public()); err == nil {
			t.Fatal("it is taken for another key")
		}
		chain, err := arrange(certs, key.Public())
		if err != nil {
			fuzzed(t, shown(err.Error()))
			return
		}
		if _, err := judge(chain, []string{"a.test"}, time.Now()); err == nil {
			t.Fatal("a certificate that we have signed ourselves is of use")
		}
	})
}
