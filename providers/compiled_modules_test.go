package providers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/secret"
	"autocertd/providers/providertest"
)

// oddZone is the zone of an API, as the libdns modules for real ones see it. How a removal works differs from one to the next.
type oddZone struct {
	remove func(z *oddZone, rec libdns.TXT) error

	mu      sync.Mutex
	records []libdns.TXT // with names relative to the zone, and an ID
	next    int
}

// oddModule is a module without SetRecords, and settingModule one with it.
type (
	oddModule     struct{ zone *oddZone }
	settingModule struct{ oddModule }
)

func (m *oddModule) GetRecords(context.Context, string) ([]libdns.Record, error) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	return append(asRecords(m.zone.records), libdns.Address{Name: "www"}), nil
}

func (m *oddModule) AppendRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	for _, rec := range recs {
		rr := rec.RR()
		if slices.ContainsFunc(m.zone.records, func(t libdns.TXT) bool { return t.Name == rr.Name && t.Text == rr.Data }) {
			return nil, errors.New("record already exists")
		}
		m.zone.append(libdns.TXT{Name: rr.Name, Text: rr.Data, TTL: max(rr.TTL, time.Minute)})
	}
	return recs, nil
}

func (z *oddZone) append(t libdns.TXT) {
	z.next++
	t.ProviderData = z.next
	z.records = append(z.records, t)
}

func (m *oddModule) DeleteRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	for _, rec := range recs {
		if err := m.zone.remove(m.zone, rec.(libdns.TXT)); err != nil {
			return nil, err
		}
	}
	return recs, nil
}

func (m *settingModule) SetRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	m.zone.mu.Lock()
	defer m.zone.mu.Unlock()
	for _, rec := range recs {
		m.zone.drop(func(t libdns.TXT) bool { return t.Name == rec.RR().Name })
	}
	for _, rec := range recs {
		m.zone.append(rec.(libdns.TXT))
	}
	return recs, nil
}

func (z *oddZone) drop(which func(libdns.TXT) bool) bool {
	before := len(z.records)
	z.records = slices.DeleteFunc(z.records, which)
	return len(z.records) < before
}

// removals are what modules do with a record that is to be removed, each seen in one that is published.
func removals() map[string]func(*oddZone, libdns.TXT) error {
	return map[string]func(*oddZone, libdns.TXT) error{
		"every TXT at the name": func(z *oddZone, rec libdns.TXT) error {
			z.drop(func(t libdns.TXT) bool { return t.Name == rec.Name })
			return nil
		},
		"the first TXT at the name": func(z *oddZone, rec libdns.TXT) error {
			i := slices.IndexFunc(z.records, func(t libdns.TXT) bool { return t.Name == rec.Name })
			if i < 0 {
				return errors.New("not found")
			}
			z.records = slices.Delete(z.records, i, i+1)
			return nil
		},
		"the record with the ID": func(z *oddZone, rec libdns.TXT) error {
			if !z.drop(func(t libdns.TXT) bool { return t.ProviderData == rec.ProviderData }) {
				return errors.New("record has no ID")
			}
			return nil
		},
		"the value with the TTL": func(z *oddZone, rec libdns.TXT) error {
			z.drop(func(t libdns.TXT) bool { return t.Name == rec.Name && t.Text == rec.Text && t.TTL == rec.TTL })
			return nil
		},
	}
}

func oddClient(module Client) *compiledClient {
	return &compiledClient{module: module, name: "odd", redact: newRedactor(nil).redact, turn: make(chan struct{}, 1)}
}

// Whatever a module does when it is told to remove a record, that record goes, and others at its name stay.
func TestCompiledModulesThatRemoveOtherwise(t *testing.T) {
	for name, remove := range removals() {
		t.Run(name, func(t *testing.T) {
			zone := &oddZone{remove: remove}
			providertest.Run(t, providertest.Harness{
				Client: oddClient(&settingModule{oddModule{zone}}),
				Zone:   "example.test",
				TXT: func(context.Context) (map[string][]string, error) {
					zone.mu.Lock()
					defer zone.mu.Unlock()
					all := map[string][]string{}
					for _, r := range zone.records {
						full := libdns.AbsoluteName(r.Name, "example.test")
						all[full] = append(all[full], r.Text)
					}
					return all, nil
				},
				TTL: func(_ context.Context, name string) (time.Duration, error) {
					zone.mu.Lock()
					defer zone.mu.Unlock()
					for _, r := range zone.records {
						if libdns.AbsoluteName(r.Name, "example.test") == name {
							return r.TTL, nil
						}
					}
					return 0, fmt.Errorf("nothing is at %s", name)
				},
				Put: func(_ context.Context, name, value string) error {
					zone.mu.Lock()
					defer zone.mu.Unlock()
					zone.append(libdns.TXT{Name: libdns.RelativeName(name, "example.test"), Text: value, TTL: time.Minute})
					return nil
				},
			})
		})
	}
}

// A module that can't set a name to what others have there isn't let near it.
func TestCompiledModuleThatMayRemoveOthers(t *testing.T) {
	zone := &oddZone{remove: removals()["every TXT at the name"]}
	c := oddClient(&oddModule{zone})
	zone.append(libdns.TXT{Name: "_acme-challenge.www", Text: "theirs"})
	if _, err := c.AppendRecords(t.Context(), "example.test", oneRecord()); err != nil {
		t.Fatal(err)
	}
	_, err := c.DeleteRecords(t.Context(), "example.test", oneRecord())
	const want = "odd, zone example.test: this module may remove every TXT record at _acme-challenge.www with ours, so ours stays; remove it by hand"
	if err == nil || said(err) != want || len(zone.records) != 2 {
		t.Errorf("got  %v, with %v left\nwant %s", err, zone.records, want)
	}
	zone.drop(func(t libdns.TXT) bool { return t.Text == "theirs" })
	if _, err := c.DeleteRecords(t.Context(), "example.test", oneRecord()); err != nil || len(zone.records) != 0 {
		t.Errorf("alone at its name it isn't removed: %v, %v", err, zone.records)
	}
}

// An API in trouble is asked again. What it was asked is shown, but for secrets.
func TestCompiledTrouble(t *testing.T) {
	for text, want := range map[string]bool{
		"unexpected status code 500: oops":                true,
		"HTTP 503":                                        true,
		"got http status 429":                             true,
		"failed: 502 Bad Gateway":                         true,
		"unexpected status code 401: 500 records":         false,
		"domain 503.example.test not found":               false,
		"status: 404, record 5000 doesn't exist":          false,
		"400 Bad Request: ttl must be greater than 500 s": false,
	} {
		c := oddClient(failingModule{errors.New(text)})
		_, err := c.AppendRecords(t.Context(), "example.test", oneRecord())
		failure, ok := errors.AsType[*Error](err)
		if !ok || failure.Retryable() != want || failure.Whole() {
			t.Errorf("%q: %v, want retryable: %v", text, err, want)
		}
	}
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	secrets := secretsAmong(map[string]secret.Secret{"server_url": secret.New(url), "token": secret.New("hunter2"), "signed": secret.New("https://x.test/?key=hunter3")})
	if len(secrets) != 2 {
		t.Errorf("the secrets are %v", secrets)
	}
	_, err := http.Get(url)
	if got := newRedactor(secrets).redact(said(err)); !strings.Contains(got, url) {
		t.Errorf("nobody knows what was asked: %s", got)
	}
}

type failingModule struct{ err error }

func (m failingModule) AppendRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, m.err
}

func (m failingModule) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, m.err
}
