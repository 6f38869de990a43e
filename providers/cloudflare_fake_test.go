package providers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeCloudflare plays the part of Cloudflare's API that concerns zones and TXT records.
type fakeCloudflare struct {
	zone  string
	token string

	// lookupToken is what the search for the zone needs instead of token, unless it is empty.
	lookupToken string

	// answer, if set, may answer a request itself by returning true.
	answer func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	records  map[string]fakeRecord // by ID
	requests []string              // their methods
}

type fakeRecord struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Content string `json:"content"`
	TTL     int    `json:"ttl"`
}

const fakeZoneID = "023e105f4ecef8ad9ca31a8372d0c353"

func (f *fakeCloudflare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/client/v4")
	f.requests = append(f.requests, r.Method)
	token := f.token
	if path == "/zones" && f.lookupToken != "" {
		token = f.lookupToken
	}
	records := "/zones/" + fakeZoneID + "/dns_records"
	id, isRecord := strings.CutPrefix(path, records+"/")
	switch {
	case f.answer != nil && f.answer(w, r):
	case r.Header.Get("Authorization") != "Bearer "+token:
		fakeRefusal(w, 403, 10000, "Authentication error")
	case r.Method == http.MethodGet && path == "/zones":
		f.findZone(w, r.URL.Query().Get("name"))
	case r.Method == http.MethodGet && path == records:
		f.find(w, r.URL.Query())
	case r.Method == http.MethodPost && path == records:
		f.create(w, r)
	case r.Method == http.MethodDelete && isRecord:
		f.remove(w, id)
	default:
		fakeRefusal(w, 405, 7001, "Method not allowed for this route")
	}
}

func (f *fakeCloudflare) findZone(w http.ResponseWriter, name string) {
	zones := []map[string]any{}
	if name == f.zone {
		zones = append(zones, map[string]any{"id": fakeZoneID, "name": f.zone})
	}
	fakeSuccess(w, zones)
}

func (f *fakeCloudflare) find(w http.ResponseWriter, query url.Values) {
	found := []fakeRecord{}
	for _, r := range f.records {
		if r.Type == query.Get("type") && r.Name == query.Get("name") && strings.Contains(r.Content, query.Get("content.contains")) {
			found = append(found, r)
		}
	}
	fakeSuccess(w, found)
}

func (f *fakeCloudflare) create(w http.ResponseWriter, req *http.Request) {
	var r fakeRecord
	if err := json.NewDecoder(req.Body).Decode(&r); err != nil {
		fakeRefusal(w, 400, 9207, "Content-Type must be application/json")
		return
	}
	if r.Name == "@" {
		r.Name = f.zone
	} else if r.Name != f.zone && !strings.HasSuffix(r.Name, "."+f.zone) {
		r.Name += "." + f.zone
	}
	r.Name = strings.ToLower(r.Name)
	if r.TTL != 1 && (r.TTL < 60 || r.TTL > 86400) {
		fakeRefusal(w, 400, 9021, "Invalid TTL. Must be between 60 and 86,400 seconds, or 1 for Automatic.")
		return
	}
	for _, other := range f.records {
		if other.Name == r.Name && other.Type == r.Type && other.Content == r.Content {
			fakeRefusal(w, 400, codeIdentical, "An identical record already exists.")
			return
		}
	}
	r.ID = fmt.Sprintf("%032x", len(f.requests))
	f.records[r.ID] = r
	fakeSuccess(w, r)
}

func (f *fakeCloudflare) remove(w http.ResponseWriter, id string) {
	if _, ok := f.records[id]; !ok {
		fakeRefusal(w, 404, codeNoRecord, "Record does not exist.")
		return
	}
	delete(f.records, id)
	fakeSuccess(w, map[string]string{"id": id})
}

func fakeSuccess(w http.ResponseWriter, result any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result})
}

func fakeRefusal(w http.ResponseWriter, status, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"success": false, "errors": []any{map[string]any{"code": code, "message": message}}, "messages": []any{}, "result": nil,
	})
}

// all returns the values of every record by name.
func (f *fakeCloudflare) all(context.Context) (map[string][]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string][]string{}
	for r := range maps.Values(f.records) {
		value, err := strconv.Unquote(r.Content)
		if err != nil {
			return nil, fmt.Errorf("record %v: %w", r, err)
		}
		all[r.Name] = append(all[r.Name], value)
	}
	return all, nil
}

func (f *fakeCloudflare) methods() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *fakeCloudflare) ttl(_ context.Context, name string) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range maps.Values(f.records) {
		if r.Name == name {
			return time.Duration(r.TTL) * time.Second, nil
		}
	}
	return 0, fmt.Errorf("no record at %s", name)
}

func (f *fakeCloudflare) put(_ context.Context, name, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records["foreign "+name] = fakeRecord{ID: "foreign", Type: "TXT", Name: name, Content: strconv.Quote(value), TTL: 300}
	return nil
}

// serve starts the fake on loopback and returns a client that takes it for Cloudflare.
func (f *fakeCloudflare) serve(t *testing.T, text string) *Provider {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	return f.provider(t, text, redirect{from: "api.cloudflare.com", host: host, next: server.Client().Transport})
}

// direct returns a client that calls the fake without a network, so that it can be used in a synctest bubble.
func (f *fakeCloudflare) direct(t *testing.T, text string) *Provider {
	return f.provider(t, text, roundTripper(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w.Result(), nil
	}))
}

func (f *fakeCloudflare) provider(t *testing.T, text string, transport http.RoundTripper) *Provider {
	t.Helper()
	p, err := New("cloudflare", options(text, ""))
	if err != nil {
		t.Fatal(err)
	}
	p.Client.(*cloudflareClient).http.(*http.Client).Transport = transport
	return p
}

// redirect sends what is meant for an API to another host.
type redirect struct {
	from string
	host string
	next http.RoundTripper
}

func (d redirect) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || r.URL.Host != d.from {
		return nil, fmt.Errorf("a request to %s", r.URL)
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", d.host
	return d.next.RoundTrip(r)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
