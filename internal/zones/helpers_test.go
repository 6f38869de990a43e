package zones

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/testbed"
)

// patience bounds what must happen sooner or later; it is no measure of speed.
const patience = time.Minute

// asking returns an Asker with resolvers and providers.
func asking(resolvers []string, list ...Provider) *Asker { return New(Config{}).With(list, resolvers) }

// key is the challenge of a host in zone example.test.
func key(host, value string) TXT {
	return TXT{"bind", "example.test", "_acme-challenge." + host + ".example.test", value}
}

// logged collects what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) Count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (l *logged) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// eventually looks until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func startDNS(t *testing.T, zones []string, records ...string) *testbed.DNS {
	t.Helper()
	d, err := testbed.StartDNS(testbed.DNSConfig{Zones: zones})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Set(records...); err != nil {
		t.Fatal(err)
	}
	return d
}

func startBIND(t *testing.T, cfg testbed.BINDConfig) *testbed.BIND {
	t.Helper()
	cfg.Dir = t.TempDir()
	b, err := testbed.StartBIND(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func zoneText(ns string, lines ...string) string {
	return "$TTL 60\n@ IN SOA " + ns + " hostmaster 1 300 60 86400 5\n@ IN NS " + ns + "\n" + ns + " IN A 127.0.0.1\n" + strings.Join(lines, "\n") + "\n"
}

func startNamed(t *testing.T, cfg testbed.NamedConfig) *testbed.Named {
	t.Helper()
	cfg.Dir = t.TempDir()
	n, err := testbed.StartNamed(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// said is an error as a person reads it.
func said(err error) string {
	if text := cure.Of(err); text != "" {
		return err.Error() + "; " + text
	}
	return fmt.Sprint(err)
}
