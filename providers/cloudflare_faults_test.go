package providers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// apiFault spoils one request: it returns what the client sees, and decides whether the API does what it was asked to.
type apiFault func(ctx context.Context, do func() *http.Response) (*http.Response, error)

func refuses(status, code int, message string) apiFault {
	return func(context.Context, func() *http.Response) (*http.Response, error) {
		w := httptest.NewRecorder()
		w.Header().Set("Retry-After", "1")
		fakeRefusal(w, status, code, message)
		return w.Result(), nil
	}
}

func timesOut(ctx context.Context, _ func() *http.Response) (*http.Response, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func worksAndTimesOut(ctx context.Context, do func() *http.Response) (*http.Response, error) {
	do()
	<-ctx.Done()
	return nil, ctx.Err()
}

func finds(result any) apiFault {
	return func(context.Context, func() *http.Response) (*http.Response, error) {
		w := httptest.NewRecorder()
		fakeSuccess(w, result)
		return w.Result(), nil
	}
}

// TestCloudflareLeavesNothing has an API that refuses, limits, times out and hides: every error is told, a removal that
// succeeds has removed, and when the fault is over the next try leaves no record of ours and all of others.
func TestCloudflareLeavesNothing(t *testing.T) {
	const (
		at       = "_acme-challenge.www.example.test in zone example.test"
		token    = "the token needs the permissions Zone.DNS:Edit and Zone.Zone:Read for zone example.test: https://dash.cloudflare.com/profile/api-tokens"
		later    = "it is tried again later; see https://www.cloudflarestatus.com"
		look     = "see whether it answers: curl -i https://api.cloudflare.com/client/v4/ips"
		timedOut = "Cloudflare's API doesn't answer about " + at + " (timeout); " + look
	)
	tests := []struct {
		name    string
		request string // zone, search, POST or DELETE
		fault   apiFault
		add     string // the error of the addition; "" is success
		remove  string // the error of the removal
	}{
		{name: "nothing is wrong"},
		{name: "it refuses the token for the zone", request: "zone", fault: refuses(403, 10000, "Authentication error"),
			add:    "Cloudflare refused api_token for zone example.test (HTTP 403, code 10000: Authentication error); " + token,
			remove: "Cloudflare refused api_token for zone example.test (HTTP 403, code 10000: Authentication error); " + token},
		{name: "it hides the zone", request: "zone", fault: finds([]any{}),
			add:    "Cloudflare has no zone example.test that api_token may see; add zone example.test to the token's zone resources, with the permission Zone.Zone:Read, at https://dash.cloudflare.com/profile/api-tokens",
			remove: "Cloudflare has no zone example.test that api_token may see; add zone example.test to the token's zone resources, with the permission Zone.Zone:Read, at https://dash.cloudflare.com/profile/api-tokens"},
		{name: "it refuses the addition", request: "POST", fault: refuses(400, 81053, "A CNAME record with that host already exists."),
			add: "Cloudflare refused the TXT record at " + at + " (HTTP 400, code 81053: A CNAME record with that host already exists.)"},
		{name: "it refuses the removal", request: "DELETE", fault: refuses(403, 10000, "Authentication error"),
			remove: "Cloudflare refused api_token for zone example.test (HTTP 403, code 10000: Authentication error); " + token},
		{name: "it limits additions", request: "POST", fault: refuses(429, 971, "Please wait"),
			add: "Cloudflare can't write " + at + " now (HTTP 429, code 971: Please wait); " + later},
		{name: "it limits removals", request: "DELETE", fault: refuses(429, 971, "Please wait"),
			remove: "Cloudflare can't write " + at + " now (HTTP 429, code 971: Please wait); " + later},
		{name: "it limits searches", request: "search", fault: refuses(429, 971, "Please wait"),
			remove: "Cloudflare can't write " + at + " now (HTTP 429, code 971: Please wait); " + later},
		{name: "it fails at searches", request: "search", fault: refuses(500, 1, "Internal error"),
			remove: "Cloudflare can't write " + at + " now (HTTP 500, code 1: Internal error); " + later},
		{name: "an addition times out", request: "POST", fault: timesOut, add: timedOut},
		{name: "an addition works and times out", request: "POST", fault: worksAndTimesOut, add: timedOut},
		{name: "a removal times out", request: "DELETE", fault: timesOut, remove: timedOut},
		{name: "a removal works and times out", request: "DELETE", fault: worksAndTimesOut, remove: timedOut},
		{name: "a search times out", request: "search", fault: timesOut, remove: timedOut},
		{name: "it hides the record", request: "search", fault: finds([]any{}),
			remove: "Cloudflare's search doesn't show the TXT record at " + at + " that it has confirmed, so it isn't removed; it is tried again; if somebody else removed it, that is believed after 10m0s"},
		{name: "a search finds no list", request: "search", fault: finds(nil),
			remove: "Cloudflare's answer about " + at + " can't be understood: not an answer of the API: the result of a search isn't a list; perhaps a proxy answers in its place: curl -i https://api.cloudflare.com/client/v4/ips"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				if err := f.put(t.Context(), "_acme-challenge.www.example.test", "theirs"); err != nil {
					t.Fatal(err)
				}
				fault := tt.fault
				p := f.provider(t, tokenOption, roundTripper(func(r *http.Request) (*http.Response, error) {
					do := func() *http.Response {
						w := httptest.NewRecorder()
						f.ServeHTTP(w, r)
						return w.Result()
					}
					if fault != nil && requestKind(r) == tt.request {
						return fault(r.Context(), do)
					}
					return do(), nil
				}))
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				_, err := p.Client.AppendRecords(ctx, f.zone, oneRecord())
				tells(t, "the addition", err, tt.add)
				_, err = p.Client.DeleteRecords(ctx, f.zone, oneRecord())
				tells(t, "the removal", err, tt.remove)
				if err == nil {
					onlyTheirs(t, f)
				}
				fault = nil
				_, err = p.Client.DeleteRecords(ctx, f.zone, oneRecord())
				tells(t, "the next removal", err, "")
				onlyTheirs(t, f)
			})
		})
	}
}

// requestKind returns what a request asks for.
func requestKind(r *http.Request) string {
	switch {
	case r.Method != http.MethodGet:
		return r.Method
	case strings.HasSuffix(r.URL.Path, "/zones"):
		return "zone"
	}
	return "search"
}

// tells compares an error, which shows no token.
func tells(t *testing.T, what string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = said(err)
	}
	if got != want {
		t.Errorf("%s tells %q\nwant %q", what, got, want)
	}
	if strings.Contains(got, "the-api-token") {
		t.Errorf("%s shows the token: %s", what, got)
	}
}

func onlyTheirs(t *testing.T, f *fakeCloudflare) {
	t.Helper()
	all, err := f.all(t.Context())
	if values := all["_acme-challenge.www.example.test"]; err != nil || len(all) != 1 || len(values) != 1 || values[0] != "theirs" {
		t.Errorf("the zone has %v, %v; want nothing but the record of others", all, err)
	}
}
