package providers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeDesec plays the part of deSEC's API that concerns RRsets: they are read and written as wholes.
type fakeDesec struct {
	zone  string
	token string

	mu   sync.Mutex
	sets map[string]desecSet // by subname
}

type desecSet struct {
	Subname string   `json:"subname"`
	Type    string   `json:"type"`
	Records []string `json:"records"`
	TTL     int      `json:"ttl"`
}

func (f *fakeDesec) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, inZone := strings.CutPrefix(r.URL.Path, "/api/v1/domains/"+f.zone+"/rrsets/")
	subname, isTXT := strings.CutSuffix(path, "/TXT")
	set, found := f.sets[strings.Replace(subname, "@", "", 1)]
	switch {
	case r.Header.Get("Authorization") != "Token "+f.token:
		http.Error(w, `{"detail":"Invalid token `+strings.TrimPrefix(r.Header.Get("Authorization"), "Token ")+`."}`, http.StatusUnauthorized)
	case inZone && r.Method == http.MethodGet && isTXT && found:
		_ = json.NewEncoder(w).Encode(set)
	case inZone && r.Method == http.MethodPut && path == "":
		f.replace(w, r)
	default:
		http.Error(w, `{"detail":"Not found."}`, http.StatusNotFound)
	}
}

// replace writes every RRset of the request, or none.
func (f *fakeDesec) replace(w http.ResponseWriter, r *http.Request) {
	var sets []desecSet
	if err := json.NewDecoder(r.Body).Decode(&sets); err != nil {
		http.Error(w, said(err), http.StatusBadRequest)
		return
	}
	for _, set := range sets {
		if set.TTL < 3600 || slices.ContainsFunc(set.Records, func(v string) bool { return !strings.HasPrefix(v, `"`) }) {
			http.Error(w, `{"ttl":["Ensure this value is greater than or equal to 3600."]}`, http.StatusBadRequest)
			return
		}
	}
	for _, set := range sets {
		f.sets[set.Subname] = set
		if len(set.Records) == 0 {
			delete(f.sets, set.Subname)
		}
	}
	_ = json.NewEncoder(w).Encode(sets)
}

func (f *fakeDesec) full(subname string) string {
	return strings.TrimPrefix(subname+"."+f.zone, ".")
}

func (f *fakeDesec) all(context.Context) (map[string][]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string][]string)
	for _, set := range f.sets {
		for _, record := range set.Records {
			value, err := strconv.Unquote(record)
			if err != nil {
				return nil, err
			}
			all[f.full(set.Subname)] = append(all[f.full(set.Subname)], value)
		}
	}
	return all, nil
}

func (f *fakeDesec) ttl(_ context.Context, name string) (time.Duration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, set := range f.sets {
		if f.full(set.Subname) == name {
			return time.Duration(set.TTL) * time.Second, nil
		}
	}
	return 0, fmt.Errorf("no record at %s", name)
}

func (f *fakeDesec) put(_ context.Context, name, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	subname := strings.TrimSuffix(name, "."+f.zone)
	f.sets[subname] = desecSet{Subname: subname, Type: "TXT", Records: []string{strconv.Quote(value)}, TTL: 3600}
	return nil
}

// serve starts the fake on loopback, and until the test ends takes it for deSEC. The module uses the default client.
func (f *fakeDesec) serve(t *testing.T) {
	server := httptest.NewServer(f)
	before := http.DefaultClient.Transport
	http.DefaultClient.Transport = redirect{from: "desec.io", host: strings.TrimPrefix(server.URL, "http://"), next: server.Client().Transport}
	t.Cleanup(func() {
		http.DefaultClient.Transport = before
		server.Close()
	})
}
