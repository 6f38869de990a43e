package providers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"

	"autocertd/providers/providertest"
)

const tokenOption = `api_token = "the-api-token"`

func newFake() *fakeCloudflare {
	return &fakeCloudflare{zone: "example.test", token: "the-api-token", records: map[string]fakeRecord{}}
}

func oneRecord() []libdns.Record {
	return []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}}
}

func TestCloudflareConformance(t *testing.T) {
	f := newFake()
	p := f.serve(t, tokenOption)
	if len(p.Servers) > 0 {
		t.Errorf("Servers = %q, want none", p.Servers)
	}
	providertest.Run(t, providertest.Harness{Client: p.Client, Zone: f.zone, TXT: f.all, TTL: f.ttl, Put: f.put})
}

func TestCloudflareZoneToken(t *testing.T) {
	f := newFake()
	f.lookupToken = "the-zone-token"
	p := f.serve(t, tokenOption+"\n"+`zone_token = "the-zone-token"`)
	if _, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
		t.Error(err)
	}
}

func TestCloudflareTTL(t *testing.T) {
	f := newFake()
	p := f.serve(t, tokenOption)
	for ttl, want := range map[time.Duration]time.Duration{0: time.Minute, 5 * time.Second: time.Minute, time.Hour: time.Hour, 48 * time.Hour: 24 * time.Hour} {
		rec := libdns.TXT{Name: "_acme-challenge." + ttl.String(), TTL: ttl, Text: "value"}
		if _, err := p.Client.AppendRecords(t.Context(), "example.test", []libdns.Record{rec}); err != nil {
			t.Fatal(err)
		}
		if got, err := f.ttl(t.Context(), rec.Name+".example.test"); err != nil || got != want {
			t.Errorf("a TTL of %v was written as %v, %v; want %v", ttl, got, err, want)
		}
	}
}

// Each row spoils one kind of request; the method says which call meets it.
func TestCloudflareFailures(t *testing.T) {
	fail := func(method, suffix string, status, code int, message string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
				return false
			}
			w.Header().Set("Retry-After", "0")
			fakeRefusal(w, status, code, message)
			return true
		}
	}
	raw := func(method, suffix, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
				return false
			}
			fmt.Fprint(w, body)
			return true
		}
	}
	const page = "https://dash.cloudflare.com/profile/api-tokens"
	tests := []struct {
		name, options, zone string
		answer              func(http.ResponseWriter, *http.Request) bool
		add, remove         string // the errors; "" is success
		retryable, whole    bool
	}{
		{
			name: "a wrong token", options: `api_token = "wrong-token"`, whole: true,
			add:    "Cloudflare refused api_token for zone example.test (HTTP 403, code 10000: Authentication error); the token needs the permissions Zone.DNS:Edit and Zone.Zone:Read for zone example.test: " + page,
			remove: "same",
		}, {
			name: "a wrong zone token", options: tokenOption + "\nzone_token = \"wrong-token\"", whole: true,
			add:    "Cloudflare refused zone_token for zone example.test (HTTP 403, code 10000: Authentication error); the token needs the permissions Zone.DNS:Edit and Zone.Zone:Read for zone example.test: " + page,
			remove: "same",
		}, {
			name: "a token that may only read", answer: fail("POST", "dns_records", 403, 10000, "Authentication error"), whole: true,
			add: "Cloudflare refused api_token for zone example.test (HTTP 403, code 10000: Authentication error); the token needs the permissions Zone.DNS:Edit and Zone.Zone:Read for zone example.test: " + page,
		}, {
			name: "a token that isn't one", answer: fail("GET", "zones", 400, 6003, "Invalid request headers"), whole: true,
			add:    "Cloudflare refused api_token for zone example.test (HTTP 400, code 6003: Invalid request headers); the token needs the permissions Zone.DNS:Edit and Zone.Zone:Read for zone example.test: " + page,
			remove: "same",
		}, {
			name: "a zone that the token may not see", zone: "example.org", whole: true,
			add:    "Cloudflare has no zone example.org that api_token may see; add zone example.org to the token's zone resources, with the permission Zone.Zone:Read, at " + page,
			remove: "same",
		}, {
			name: "the lookup before a removal fails", answer: fail("GET", "dns_records", 500, 1, "Internal\nerror"), retryable: true, whole: true,
			remove: "Cloudflare can't write _acme-challenge.www.example.test in zone example.test now (HTTP 500, code 1: Internal error); it is tried again later; see https://www.cloudflarestatus.com",
		}, {
			name: "the lookup before a removal has no list", answer: raw("GET", "dns_records", `{"success": true, "result": null}`), retryable: true, whole: true,
			remove: "Cloudflare's answer about _acme-challenge.www.example.test in zone example.test can't be understood: not an answer of the API: the result of a search isn't a list; perhaps a proxy answers in its place: curl -i https://api.cloudflare.com/client/v4/ips",
		}, {
			name: "a proxy's page", answer: raw("POST", "dns_records", "<html>"), retryable: true, whole: true,
			add: "Cloudflare's answer about _acme-challenge.www.example.test in zone example.test can't be understood: not an answer of the API: invalid character '<' looking for beginning of value; perhaps a proxy answers in its place: curl -i https://api.cloudflare.com/client/v4/ips",
		}, {
			name: "a success that isn't one", answer: raw("POST", "dns_records", `{"success": false, "errors": [{"code": 1004, "message": "DNS Validation Error"}]}`),
			add: "Cloudflare refused the TXT record at _acme-challenge.www.example.test in zone example.test (HTTP 200, code 1004: DNS Validation Error)",
		}, {
			name: "the record is refused", answer: fail("POST", "dns_records", 400, 81053, "A CNAME record with that host already exists."),
			add: "Cloudflare refused the TXT record at _acme-challenge.www.example.test in zone example.test (HTTP 400, code 81053: A CNAME record with that host already exists.)",
		}, {
			name: "too many requests", answer: fail("POST", "dns_records", 429, 971, "Please wait"), retryable: true, whole: true,
			add: "Cloudflare can't write _acme-challenge.www.example.test in zone example.test now (HTTP 429, code 971: Please wait); it is tried again later; see https://www.cloudflarestatus.com",
		}, {
			name: "the removal fails", answer: fail("DELETE", "", 502, 1, "Bad gateway"), retryable: true, whole: true,
			remove: "Cloudflare can't write _acme-challenge.www.example.test in zone example.test now (HTTP 502, code 1: Bad gateway); it is tried again later; see https://www.cloudflarestatus.com",
		}, {
			name: "somebody else was faster", answer: fail("DELETE", "", 404, codeNoRecord, "Record does not exist."),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.options == "" {
				tt.options = tokenOption
			}
			if tt.zone == "" {
				tt.zone = "example.test"
			}
			if tt.remove == "same" {
				tt.remove = tt.add
			}
			f := newFake()
			// The record is there for the removal, whatever the addition says.
			if _, err := f.serve(t, tokenOption).Client.AppendRecords(t.Context(), f.zone, oneRecord()); err != nil {
				t.Fatal(err)
			}
			f.answer = tt.answer
			p := f.serve(t, tt.options)
			_, err := p.Client.AppendRecords(t.Context(), tt.zone, oneRecord())
			compareCloudflare(t, err, tt.add, tt.retryable, tt.whole)
			_, err = p.Client.DeleteRecords(t.Context(), tt.zone, oneRecord())
			compareCloudflare(t, err, tt.remove, tt.retryable, tt.whole)
		})
	}
}

func compareCloudflare(t *testing.T, err error, want string, retryable, whole bool) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v, want success", err)
		}
		return
	}
	failure, ok := errors.AsType[*Error](err)
	if !ok || said(err) != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if failure.Retryable() != retryable || failure.Whole() != whole {
		t.Errorf("Retryable() = %v, Whole() = %v; want %v, %v", failure.Retryable(), failure.Whole(), retryable, whole)
	}
	for _, token := range []string{"the-api-token", "wrong-token"} {
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), token) {
			t.Errorf("a token is shown: %#v", err)
		}
	}
}

func TestCloudflareOutsideTheZone(t *testing.T) {
	p := newFake().serve(t, tokenOption)
	rec := []libdns.Record{libdns.TXT{Name: "_acme-challenge.example.org.", Text: "value"}}
	_, err := p.Client.AppendRecords(t.Context(), "example.test", rec)
	compareCloudflare(t, err, "_acme-challenge.example.org isn't in zone example.test", false, false)
}

func TestCloudflareUnreachable(t *testing.T) {
	f := newFake()
	p := f.provider(t, tokenOption, roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }))
	_, err := p.Client.DeleteRecords(t.Context(), "example.test", oneRecord())
	compareCloudflare(t, err, "Cloudflare's API can't be reached: no route to host; see whether it answers: curl -i https://api.cloudflare.com/client/v4/ips", true, true)
}

// The API says "later" a few times; how long each wait is, is read from the bubble's clock.
func TestCloudflareRetries(t *testing.T) {
	tests := []struct {
		name       string
		retryAfter string
		refusals   int // of the addition, before it succeeds
		posts      int
		min, max   time.Duration // of the whole call
		ok         bool
	}{
		{"once, as long as it asks", "7", 1, 2, 7 * time.Second, 7 * time.Second, true},
		{"twice, as a date", "Sat, 01 Jan 2000 00:00:05 GMT", 2, 3, 5 * time.Second, 5 * time.Second, true},
		{"a date that has passed", "Sat, 01 Jan 2000 00:00:00 GMT", 2, 3, 0, 0, true},
		{"without saying how long", "", 2, 3, 3 * time.Second, 5 * time.Second, true},
		{"three times is too often", "1", 3, 3, 2 * time.Second, 2 * time.Second, false},
		{"an hour is too long", "3600", 1, 1, 0, 0, false},
		{"nonsense", "-5", 1, 2, time.Second, 2 * time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				posts := 0
				f.answer = func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodPost {
						posts++
					}
					if r.Method != http.MethodPost || posts > tt.refusals {
						return false
					}
					w.Header().Set("Retry-After", tt.retryAfter)
					fakeRefusal(w, http.StatusTooManyRequests, 971, "Please wait")
					return true
				}
				p := f.direct(t, tokenOption)
				start := time.Now()
				_, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
				if took := time.Since(start); took < tt.min || took > tt.max {
					t.Errorf("it took %v, want %v to %v", took, tt.min, tt.max)
				}
				if (err == nil) != tt.ok || posts != tt.posts {
					t.Errorf("%d posts, %v; want %d, success: %v", posts, err, tt.posts, tt.ok)
				}
				all, _ := f.all(t.Context())
				if (len(all) == 1) != tt.ok {
					t.Errorf("the server has %v", all)
				}
			})
		})
	}
}

// The API did what was asked, but its answer is lost: the second try finds it done.
func TestCloudflareLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		lose := map[string]bool{http.MethodPost: true, http.MethodDelete: true}
		p := f.provider(t, tokenOption, roundTripper(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			if lose[r.Method] {
				delete(lose, r.Method)
				w = httptest.NewRecorder()
				w.WriteHeader(http.StatusGatewayTimeout)
			}
			return w.Result(), nil
		}))
		if _, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
			t.Error(err)
		}
		if _, err := p.Client.DeleteRecords(t.Context(), "example.test", oneRecord()); err != nil {
			t.Error(err)
		}
		want := []string{"GET", "POST", "POST", "GET", "GET", "DELETE", "DELETE"}
		if got := f.methods(); !slices.Equal(got, want) {
			t.Errorf("requests are %q, want %q", got, want)
		}
		if all, _ := f.all(t.Context()); len(all) > 0 {
			t.Errorf("the server has %v", all)
		}
	})
}

func TestCloudflareCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "9")
			fakeRefusal(w, http.StatusServiceUnavailable, 1, "later")
			return true
		}
		p := f.direct(t, tokenOption)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Client.DeleteRecords(ctx, "example.test", oneRecord())
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
}

// The search doesn't show yet what was added: a removal that removes nothing must not pass for one.
func TestCloudflareHidesARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		p := f.direct(t, tokenOption)
		if _, err := p.Client.AppendRecords(t.Context(), f.zone, oneRecord()); err != nil {
			t.Fatal(err)
		}
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			hide := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/dns_records")
			if hide {
				fakeSuccess(w, []any{})
			}
			return hide
		}
		const want = "Cloudflare's search doesn't show the TXT record at _acme-challenge.www.example.test in zone example.test that it has confirmed, so it isn't removed; " +
			"it is tried again; if somebody else removed it, that is believed after 10m0s"
		for range 2 {
			_, err := p.Client.DeleteRecords(t.Context(), f.zone, oneRecord())
			compareCloudflare(t, err, want, true, true)
		}
		// Other records are believed absent.
		other := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", Text: "other"}}
		if _, err := p.Client.DeleteRecords(t.Context(), f.zone, other); err != nil {
			t.Error(err)
		}
		f.answer = nil
		if _, err := p.Client.DeleteRecords(t.Context(), f.zone, oneRecord()); err != nil {
			t.Error(err)
		}
		if all, _ := f.all(t.Context()); len(all) > 0 {
			t.Errorf("the server has %v", all)
		}
		// Somebody else removes a record, and after a while that is believed.
		if _, err := p.Client.AppendRecords(t.Context(), f.zone, oneRecord()); err != nil {
			t.Fatal(err)
		}
		clear(f.records)
		time.Sleep(hideTime + time.Second)
		if _, err := p.Client.DeleteRecords(t.Context(), f.zone, oneRecord()); err != nil {
			t.Error(err)
		}
	})
}

// An API that never answers must not hold a call for ever.
func TestCloudflareTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake().provider(t, tokenOption, roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		start := time.Now()
		_, err := p.Client.AppendRecords(t.Context(), "example.test", oneRecord())
		failure, ok := errors.AsType[*Error](err)
		if !ok || !strings.HasPrefix(said(err), "Cloudflare's API doesn't answer about _acme-challenge.www.example.test in zone example.test (timeout)") || !failure.Retryable() {
			t.Errorf("got %v, want a timeout that may be tried again", err)
		}
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("it took %v, want 15 s", took)
		}
	})
}

func TestCloudflareOptionMistakes(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "api_token: missing; make one with the permissions Zone.DNS:Edit and Zone.Zone:Read at https://dash.cloudflare.com/profile/api-tokens"},
		{"api_token = \"the-api-token\\r\\nX: y\"\nzone_token = \"ä\"", "api_token: holds blanks or other characters that no token has; copy it again\n" +
			"zone_token: holds blanks or other characters that no token has; copy it again"},
	}
	for _, tt := range tests {
		if _, err := New("cloudflare", options(tt.text, "")); err == nil || said(err) != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

// FuzzCloudflareReply looks for answers that make a removal panic, or succeed without the API having said that the
// record is gone or was never there.
func FuzzCloudflareReply(f *testing.F) {
	f.Add(200, `{"success":true,"result":[]}`)
	f.Add(200, `{"success":true,"result":[{"id":"x","type":"TXT","name":"_acme-challenge.www.example.test","content":"\"value\""}]}`)
	f.Add(200, `{"success":true,"result":{}}`)
	f.Add(500, "")
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 || status == http.StatusTooManyRequests || status >= 500 {
			return // these wait before they come back
		}
		fake := newFake()
		fake.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || strings.HasSuffix(r.URL.Path, "/zones") {
				return false
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
		_, err := fake.direct(t, tokenOption).Client.DeleteRecords(t.Context(), "example.test", oneRecord())
		if err == nil && !(status < 300 && strings.Contains(body, "[") && strings.Contains(strings.ToLower(body), "success")) {
			t.Errorf("HTTP %d %q passed for a success", status, body)
		}
	})
}
