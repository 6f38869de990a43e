package issuer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"autocertd/internal/testbed"
	"autocertd/internal/testbed/hostile"
	"autocertd/issuer"
)

// newHostileWorld is newWorld with a CA in a mode, which it is in from the first order on.
func newHostileWorld(t *testing.T, mode string) (*world, *hostile.CA) {
	t.Helper()
	dns, err := testbed.StartDNS(testbed.DNSConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	ca, err := hostile.Start(mode, testbed.CAConfig{DNS: dns.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	w := &world{CA: ca.CA, DNS: dns, Solver: &zoneSolver{DNS: dns}, Store: &memory{}}
	w.Config = issuer.Config{Name: "hostile", Directory: ca.Directory(), AcceptTerms: true,
		Roots: certificates(t, ca.TLSRootsPEM()), Storage: w.Store, Solver: w.Solver, UserAgent: "autocertd/test"}
	w.restart(t)
	ca.Turn(true)
	return w, ca
}

// hostileTest is what becomes of an order at a CA in a mode.
type hostileTest struct {
	mode      string
	says      string // of the error; fine when there is none
	published bool   // the records of the order
}

const fine = ""

// TestHostileCA says what becomes of an order at each CA that doesn't play fair: nothing is published that wasn't ordered,
// nobody is led astray, and the reason is told in words that are fit to be shown.
func TestHostileCA(t *testing.T) {
	tests := []hostileTest{
		{"authz-name", `authorization: the CA wants an authorization for "bank.example.test", which wasn't ordered`, false},
		{"authz-parent", `the CA wants an authorization for "example.test", which wasn't ordered`, false},
		{"authz-type", `for "h.example.test" of type "ip", which wasn't ordered`, false},
		{"authz-wildcard", `for "*.h.example.test", which wasn't ordered`, false},
		{"authz-value", fine, true},
		{"authz-token", "the CA's token isn't one", false},
		{"authz-token-long", "the CA's token isn't one", false},
		{"authz-twice", "the CA wants 2 authorizations for 1 hostnames", false},
		{"authz-many", "the CA wants 1000 authorizations for 1 hostnames", false},

		{"url-authz", "isn't on the host of its directory; if the CA is right, write hosts = [", false},
		{"url-authz-plain", "which isn't an https URL", false},
		{"url-challenge", "isn't on the host of its directory", false},
		{"url-finalize", "isn't on the host of its directory", false},
		{"url-certificate", "isn't on the host of its directory", true},
		{"url-directory", "isn't on the host of its directory", false},
		{"url-renewal", fine, true},
		{"redirect-directory", "isn't on the host of its directory", false},
		{"redirect-neworder", "redirects a signed request", false},
		{"redirect-challenge", "redirects a signed request", true},
		{"redirect-finalize", "redirects a signed request", true},
		{"link-alternate-elsewhere", fine, true},
		{"link-up-elsewhere", fine, true},

		{"endless-order", "sends more than 128 KiB", false},
		{"endless-authz", "sends more than 128 KiB", false},
		{"endless-chain", "sends more than 128 KiB", true},
		{"endless-error", "HTTP 500: <p><p>", false},
		{"endless-nonce", "(badNonce)", false},
		{"link-up", fine, true},
		{"link-alternate", fine, true},
		{"chain-long", "sends more than 128 KiB", true},

		{"cert-notyet", "isn't valid before", true},
		{"cert-soon", fine, true},
		{"cert-expired", "expired at", true},
		{"cert-ending", "too soon to be of use", true},
		{"cert-extraname", fine, true},
		{"cert-othername", "lacks the hostname h.example.test", true},
		{"cert-otherkey", "for another key", true},
		{"cert-nochain", fine, true},
		{"cert-foreignchain", "a chain that doesn't belong together", true},
		{"cert-selfissued", "names itself as its issuer", true},
		{"cert-cafirst", fine, true},
		{"cert-404", "certificate: no such certificate (malformed)", true},
		{"cert-503", "certificate: not now (serverInternal)", true},
		{"cert-lost", "CA hostile: certificate: ", true},
		{"cert-html", "sends no certificate, but text/html: <h1>It works!</h1>", true},
		{"cert-garbage", "a broken certificate", true},

		{"text-problem", `order: bad]0;title[2J level=ERROR msg="forged line" gnp.exe (rejectedIdentifier)`, false},
		{"text-long", "\U0001f512 …", false},
		{"text-html", `HTTP 500: <td>"</td> <td>"</td>`, false},
		{"text-status", `an order can't be "bad]0;title[2J`, false},
		{"text-subjects", `"detail":"many"`, false},
		{"text-directory", fine, true},
		{"text-issuer", fine, true},

		{"field-problem", "order: Domain is not approved (rejectedIdentifier)", false},
		{"field-orders", fine, true},
		{"field-notbefore", fine, true},
		{"field-expires", fine, true},
		{"field-never", fine, true},
		{"field-wildcard", fine, true},
		{"field-validated", fine, true},
		{"field-account", fine, true},
		{"field-type", fine, true},
		{"field-json", fine, true},
		{"field-relative", fine, true},
		{"field-relative-account", fine, true},
		{"field-meta", fine, true},

		{"order-null", "it isn't a JSON object, but null", false},
		{"order-empty", "isn't an order: it has no status", false},
		{"order-nolocation", "doesn't say where the order is", false},
		{"order-nocertificate", "doesn't say where its certificate is", true},
		{"order-lost", "CA hostile: order: ", false},
		{"retry-after", "later (rateLimited)", false},

		{"finalize-500", "finalize: Unable to retrieve SCTs (serverInternal)", true},
		{"finalize-notready", fine, true},
		{"finalize-badcsr", "public key is forbidden (badCSR)", true},
		{"challenge-conflict", fine, true},
		{"account-429", "too many registrations (rateLimited)", false},
		{"account-blocked", "Account blocked (unauthorized); see what the CA says of the account: autocertd account show hostile", false},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			tt.run(t)
		})
	}
}

func (tt hostileTest) run(t *testing.T) {
	w, ca := newHostileWorld(t, tt.mode)
	bundle, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"h.example.test"}, Orders: &orders{}})
	switch {
	case tt.says == fine && err != nil:
		t.Errorf("it fails: %v", err)
	case tt.says == fine && bundle.Cert.VerifyHostname("h.example.test") != nil:
		t.Errorf("the certificate is for %v", bundle.Cert.DNSNames)
	case tt.says != fine && (err == nil || !strings.Contains(said(err), tt.says)):
		t.Errorf("got %.2000v, want an error that says %q", err, tt.says)
	case err != nil && (len(said(err)) > 2000 || strings.ContainsAny(said(err), "\x1b\n\r\u202e") || strings.TrimSpace(said(err)) != said(err) || strings.HasSuffix(said(err), ":")):
		t.Errorf("the error isn't fit to be shown: %q", err)
	case err != nil && strings.Count(said(err), tt.says) > 1:
		t.Errorf("the error says it twice: %q", err)
	}
	want := []string(nil)
	if tt.published {
		want = []string{"_acme-challenge.h.example.test"}
	}
	if !slices.Equal(w.Solver.Published, want) {
		t.Errorf("published are %v, want %v", w.Solver.Published, want)
	}
	if n := ca.Stranger.Visits(); n > 0 {
		t.Errorf("a stranger got %d requests", n)
	}
	if n := ca.NewOrders(); n > 2 {
		t.Errorf("%d orders for one wish", n)
	}
}

// TestOddCA is TestHostileCA for variations of its modes.
func TestOddCA(t *testing.T) {
	const stray, token = "isn't on the host of its directory; if the CA is right, write hosts = [", "the CA's token isn't one"
	tests := []hostileTest{
		{"authz-ip", `for "127.0.0.1" of type "ip", which wasn't ordered`, false},
		{"authz-noid", `for "" of type "", which wasn't ordered`, false},
		{"authz-case", fine, true},
		{"authz-dot", fine, true},
		{"authz-dots", `for "h.example.test..", which wasn't ordered`, false},
		{"authz-blank", fine, true},
		{"authz-star", `for "*.h.example.test", which wasn't ordered`, false},
		{"authz-homograph", "which wasn't ordered", false},
		{"authz-nourl", "the CA leaves out a URL that it must name", false},
		{"authz-404", "authorization: no such authorization (malformed)", false},
		{"authz-html", "it isn't JSON, but <h1>It works!</h1>", false},
		{"authz-429", "authorization: too many requests (rateLimited)", false},
		{"authz-403", "authorization: not yours (unauthorized)", false},
		{"authz-nochallenge", "the CA offers no challenge for h.example.test; have the CA allow dns-01", false},
		{"authz-http", "no dns-01 challenge for h.example.test, only http-01; have the CA allow dns-01", false},
		{"authz-deactivated", "authorization: h.example.test: the authorization is deactivated", false},
		{"authz-lapses", "authorization: h.example.test: the authorization is expired", true},
		{"authz-revoked", "authorization: h.example.test: the authorization is revoked", true},
		{"authz-strange", "authorization: h.example.test: the authorization is maybe[2J", true},
		{"authz-processing", fine, true},
		{"authz-forgotten", "challenge: h.example.test: validation failed: no TXT record (dns); the server", true},
		{"authz-401", "authorization: h.example.test: who are you? (unauthorized)", true},

		{"token-empty", "the CA's challenge has no token", false},
		{"token-number", "the CA's challenge has no token", false},
		{"token-null", "the CA's challenge has no token", false},
		{"token-padded", token, false},
		{"token-unicode", token, false},
		{"token-nul", token, false},
		{"token-quote", token, false},
		{"token-blank", token, false},
		{"token-513", token, false},

		{"challenge-port", stray + `"127.0.0.1:1"]`, false},
		{"challenge-user", "which holds a user name or a password", false},
		{"challenge-file", "leads to file:///etc/passwd, which isn't an https URL", false},
		{"challenge-nourl", "the CA leaves out a URL that it must name", false},
		{"challenge-escape", "which isn't a URL", false},
		{"challenge-host", "which isn't a URL", false},
		{"finalize-plain", "which isn't an https URL", false},
		{"finalize-nourl", "finalize: the CA leaves out a URL that it must name", true},
		{"finalize-relative", "leads to /finalize-order/1, which isn't an https URL", false},
		{"finalize-long", "which isn't a URL", false},
		{"location-account", stray, false},
		{"location-order", stray, false},
		{"location-noaccount", "doesn't say where the account is", false},
		{"redirect-chain", "account: the CA redirects more than 5 times", false},
		{"redirect-nonce", stray, false},
		{"redirect-nowhere", "answers HTTP 302 (Found)", false},
		{"directory-relative", "leads to /order-plz, which isn't an https URL", false},
		{"directory-html", "it isn't JSON, but <h1>It works!</h1>; check directory below [ca.hostile]: is https://", false},
		{"directory-empty", "it isn't JSON, but nothing; check directory below [ca.hostile]", false},
		{"directory-other", "isn't an ACME directory: newOrder, newNonce or newAccount is missing; check directory below [ca.hostile]", false},
		{"directory-401", "answers HTTP 401 (Unauthorized); check directory below [ca.hostile]", false},
		{"directory-429", "answers HTTP 429 (Too Many Requests): too many requests (rateLimited)", false},

		{"challenge-404", "challenge: h.example.test: no such challenge (malformed)", true},
		{"challenge-429", "challenge: h.example.test: too many requests (rateLimited)", true},
		{"finalize-429", "finalize: too many requests (rateLimited)", true},
		{"finalize-404", "finalize: no such finalize (malformed)", true},
		{"finalize-401", "finalize: account is deactivated (unauthorized)", true},
		{"finalize-html", fine, true},
		{"finalize-204", fine, true},
		{"cert-429", "certificate: too many requests (rateLimited)", true},
		{"finalize-noaccount", "finalize: no such account (accountDoesNotExist)", true},
		{"finalize-invalid", "finalize: CAA says no (caa), for a[2J.test; a CAA record forbids", true},
		{"order-invalid", "CAA says no (caa), for a[2J.test; a CAA record forbids", false},
		{"order-204", "it isn't JSON, but nothing", false},
		{"order-202", fine, true},
		{"order-identifiers", fine, true},
		{"order-past", fine, true},
		{"order-regress", fine, true},
		{"order-valid", "doesn't say where its certificate is", false},
		{"order-noaccount", "order: no such account (accountDoesNotExist); see what the CA says", false},

		{"order-packed", fine, true},
		{"order-bomb", "sends more than 128 KiB", false},
		{"order-notgzip", "no reply that can be read comes from https://", false},
		{"order-deep", "it isn't JSON, but [[[[", false},
		{"order-cut", `it isn't JSON, but {"status": "pend`, false},
		{"order-headers", "no reply that can be read comes from https://", false},
		{"nonce-429", "answers HTTP 429 (Too Many Requests)", false},
		{"nonce-503", "answers HTTP 503 (Service Unavailable)", false},
		{"nonce-none", "(badNonce)", false},
		{"nonce-bad", "order: try again (badNonce)", false},
		{"retry-past", "order: later (serverInternal)", false},
		{"retry-far", "order: later (serverInternal)", false},
		{"retry-negative", "order: later (serverInternal)", false},
		{"retry-overflow", "order: later (serverInternal)", false},
		{"retry-garbage", "order: later (serverInternal)", false},

		{"problem-title", "order: Forbidden by policy", false},
		{"problem-notype", "order: Not for you", false},
		{"problem-empty", "order: HTTP 403: Forbidden", false},
		{"problem-list", `order: HTTP 403: [{"detail":"x"}]`, false},
		{"problem-typeonly", "order: caa (HTTP 403); a CAA record forbids", false},
		{"problem-own", "order: No. (https://ca.test/errors/7)", false},
		{"problem-same", `Cannot issue for "h.example.test": forbidden`, false},
		{"problem-200", "order: CAA says no (caa)", false},

		{"cert-twice", fine, true},
		{"cert-root", fine, true},
		{"cert-crossed", fine, true},
		{"cert-twoleaves", "a chain that doesn't belong together", true},
		{"cert-oldissuer", "the certificate of an issuer that expired at", true},
		{"cert-backwards", "a certificate that is never valid", true},
		{"cert-wildcard", fine, true},
		{"cert-sancase", fine, true},
		{"cert-ip", fine, true},
		{"cert-cnonly", "lacks the hostname h.example.test", true},
		{"cert-client", fine, true},
		{"cert-poison", "a critical extension that no client knows", true},
		{"cert-withkey", `something else among the certificates: "PRIVATE KEY"`, true},
		{"cert-pkcs7", "sends no certificate, but application/pkcs7-mime", true},
		{"cert-empty", "sends no certificate, but application/pem-certificate-chain: nothing", true},
	}
	tested := []string{"authz-none"} // which TestNeverReady has
	for _, tt := range tests {
		tested = append(tested, tt.mode)
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			tt.run(t)
		})
	}
	if slices.Sort(tested); !slices.Equal(tested, hostile.OddModes()) {
		t.Errorf("not all modes are tested: %v", hostile.OddModes())
	}
}

// TestAllowedHosts: a CA may lead to the hosts that its table names.
func TestAllowedHosts(t *testing.T) {
	w, ca := newHostileWorld(t, "url-authz")
	w.Config.Hosts = []string{strings.TrimPrefix(ca.Stranger.HTTPS, "https://")}
	w.restart(t)
	_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"a.example.test"}, Orders: &orders{}})
	if err == nil || ca.Stranger.Visits() == 0 {
		t.Errorf("nobody went where the CA leads to: %v", err)
	}
}

// TestAlternates: of many alternate chains some are looked at, for who prefers one that isn't there.
func TestAlternates(t *testing.T) {
	w, ca := newHostileWorld(t, "link-alternate")
	w.Config.PreferredChain = "no such root"
	w.restart(t)
	if _, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"l.example.test"}, Orders: &orders{}}); err != nil {
		t.Fatal(err)
	}
	if n := ca.Seen("certificate"); n != 11 {
		t.Errorf("%d chains were fetched, want the CA's own and 10 more", n)
	}
}

// TestTraceIsPrintable: a person watches what a CA says on a terminal.
func TestTraceIsPrintable(t *testing.T) {
	for _, mode := range []string{"text-problem", "text-directory", "text-html", "authz-token", "text-issuer"} {
		var out bytes.Buffer
		w, _ := newHostileWorld(t, mode)
		w.Config.Transport = issuer.NewTracer(w.Config.Roots, &out)
		w.restart(t)
		request := issuer.Request{Hostnames: []string{"t.example.test"}, Orders: &orders{}}
		if view, err := w.OpenStep(t.Context(), request); err == nil && strings.ContainsFunc(view.Status+view.Authorizations[0].Offered, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: the order is shown as %+v", mode, view)
		}
		if out.Len() == 0 || strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%s: the trace isn't fit for a terminal: %.300q", mode, out.String())
		}
	}
}

// TestSilentCADelaysNobody: a CA that doesn't answer keeps only those waiting who asked it.
func TestSilentCADelaysNobody(t *testing.T) {
	silent, _ := newHostileWorld(t, "silent")
	well := newWorld(t, testbed.CAConfig{}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := silent.Obtain(ctx, issuer.Request{Hostnames: []string{"s.example.test"}, Orders: &orders{}})
		ended <- err
	}()
	if _, err := well.Obtain(t.Context(), issuer.Request{Hostnames: []string{"w.example.test"}, Orders: &orders{}}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Errorf("the certificate of the other CA came only after the silent one had been given up: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the silent one ends with %v", err)
	}
}

// TestValueIsMadeHere: the value that is published follows from the token and the key of our account, whatever the CA says.
func TestValueIsMadeHere(t *testing.T) {
	w, _ := newHostileWorld(t, "authz-value")
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"v.example.test"}, Orders: keep}
	view, err := w.OpenStep(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	chosen := sha256.Sum256([]byte("chosen.by-the-CA"))
	if len(view.Records) != 1 || view.Records[0].Value == base64.RawURLEncoding.EncodeToString(chosen[:]) {
		t.Errorf("a person is asked to publish %v", view.Records)
	}
}

// TestDeadOrder: an order whose certificate can't be had is given up after some tries.
func TestDeadOrder(t *testing.T) {
	for _, mode := range []string{"cert-404", "cert-503", "cert-lost", "cert-html", "order-nocertificate",
		"authz-404", "authz-403", "authz-html", "authz-nochallenge", "token-null", "challenge-404", "finalize-404", "finalize-nourl"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w, ca := newHostileWorld(t, mode)
			keep := &orders{}
			request := issuer.Request{Hostnames: []string{"d.example.test"}, Orders: keep}
			var left []bool
			for range 4 {
				request.Open = keep.Open
				if _, err := w.Obtain(t.Context(), request); err == nil {
					t.Fatal("there is a certificate")
				}
				left = append(left, keep.Open != nil)
			}
			if want := []bool{true, true, false, true}; !slices.Equal(left, want) || ca.NewOrders() != 2 {
				t.Errorf("the order is left open: %v, want %v; %d orders", left, want, ca.NewOrders())
			}
			ca.Turn(false)
			request.Open = keep.Open
			if _, err := w.Obtain(t.Context(), request); err != nil {
				t.Errorf("when the certificate is there: %v", err)
			}
		})
	}
}

// TestWaited: an order that the CA works on for longer than anybody waits stays open, and says so.
func TestWaited(t *testing.T) {
	w, _ := newHostileWorld(t, "finalize-processing")
	w.Config.Patience = 50 * time.Millisecond
	w.restart(t)
	keep := &orders{}
	_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"w.example.test"}, Orders: keep})
	if _, ok := errors.AsType[*issuer.WorkingError](err); !ok || keep.Open == nil || !keep.Open.Waited {
		t.Errorf("got %v, and the order that is left is %+v", err, keep.Open)
	}
}

// TestNeverReady: an order that the CA lets nobody finalize is waited for, and given up when that has been for long.
func TestNeverReady(t *testing.T) {
	w, ca := newHostileWorld(t, "authz-none")
	w.Config.Patience = 50 * time.Millisecond
	w.restart(t)
	keep := &orders{}
	request := issuer.Request{Hostnames: []string{"n.example.test"}, Orders: keep}
	_, err := w.Obtain(t.Context(), request)
	if _, ok := errors.AsType[*issuer.WorkingError](err); !ok || keep.Open == nil {
		t.Fatalf("got %v", err)
	}
	keep.Open.Created = keep.Open.Created.Add(-2 * time.Hour)
	request.Open = keep.Open
	if _, err := w.Obtain(t.Context(), request); err == nil || !strings.Contains(said(err), "the CA calls the order pending, and hasn't taken it for 2h0m0s") || keep.Open != nil {
		t.Errorf("two hours later: %v", err)
	}
	ca.Turn(false)
	request.Open = nil
	if _, err := w.Obtain(t.Context(), request); err != nil {
		t.Error(err)
	}
}

// TestNothingCounted: an authorization that lapses is no failed validation, which CAs count.
func TestNothingCounted(t *testing.T) {
	for mode, counts := range map[string]bool{"authz-lapses": false, "authz-revoked": false, "authz-deactivated": false, "authz-forgotten": true} {
		w, _ := newHostileWorld(t, mode)
		keep := &orders{}
		_, err := w.Obtain(t.Context(), issuer.Request{Hostnames: []string{"c.example.test"}, Orders: keep})
		if issuer.FailedValidation(err) != counts || keep.Open != nil {
			t.Errorf("%s: counted: %t, and left is %+v", mode, !counts, keep.Open)
		}
	}
}

// TestCertificateInUse: one that is about to expire doesn't take the place of one that isn't.
func TestCertificateInUse(t *testing.T) {
	w, ca := newHostileWorld(t, "cert-brief")
	request := issuer.Request{Hostnames: []string{"u.example.test"}, Orders: &orders{}}
	ca.Turn(false)
	first, err := w.Obtain(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	ca.Turn(true)
	if _, err := w.Obtain(t.Context(), request); err != nil {
		t.Errorf("there was none before: %v", err)
	}
	request.InUse = first.Cert
	if _, err := w.Obtain(t.Context(), request); err == nil || !strings.Contains(said(err), "before the one that is in use") {
		t.Errorf("got %v", err)
	}
	if block, _ := pem.Decode(first.Leaf); block == nil {
		t.Error("the first certificate isn't PEM")
	}
}
