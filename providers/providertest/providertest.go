// Package providertest owns the conformance suite that every type of provider passes.
// Starting the server that a provider writes to is left to the caller.
package providertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
)

// Client is what the suite tests.
type Client interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Harness is a client and the side doors to the server that it writes to. Names are full, in lower case, without the
// trailing dot.
type Harness struct {
	// Client writes to Zone, which is empty but for its own records and which nobody else writes to.
	Client Client
	Zone   string

	// TXT returns the values of every TXT record that the server has in the zone, by name.
	TXT func(ctx context.Context) (map[string][]string, error)

	// TTL returns the TTL of the TXT records at a name.
	TTL func(ctx context.Context, name string) (time.Duration, error)

	// MinTTL is the shortest TTL that the server takes; shorter ones become it.
	MinTTL time.Duration

	// Put adds a TXT record by another way than the client.
	Put func(ctx context.Context, name, value string) error
}

// Run tests the client. Each test uses names of its own.
func Run(t *testing.T, h Harness) {
	h.Zone = strings.TrimSuffix(h.Zone, ".")
	tests := []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"a record is there after it was added and gone after it was removed", addAndRemove},
		{"the zone may end with a dot", zoneWithDot},
		{"the zone itself, its challenge, and names of several labels", names},
		{"two values live at one name and each is removed alone", twoValues},
		{"values of others stay", foreignValues},
		{"a value may hold every printable character but quotes and backslashes", oddValue},
		{"adding what is there succeeds", addTwice},
		{"removing what is absent succeeds", removeAbsent},
		{"the TTL is written", ttl},
		{"a hundred records in one call", hundred},
		{"several callers at once", concurrent},
		{"callers that add and remove at one name at once", crossing},
		{"a cancelled call says so and writes nothing", cancelled},
		{"a call cancelled on its way says so, and what it wrote can be removed", cancelledOnTheWay},
		{"what isn't a TXT record with a value is refused", refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, h) })
	}
}

func addAndRemove(t *testing.T, h Harness) {
	got := h.add(t, txt("_acme-challenge.basic", "value"))
	if len(got) != 1 || got[0].RR().Data != "value" || got[0].RR().Type != "TXT" {
		t.Errorf("AppendRecords returned %v, want the record", got)
	}
	h.want(t, "_acme-challenge.basic", "value")
	h.remove(t, txt("_acme-challenge.basic", "value"))
	h.want(t, "_acme-challenge.basic")
}

func zoneWithDot(t *testing.T, h Harness) {
	rec := []libdns.Record{txt("_acme-challenge.dot", "value")}
	if _, err := h.Client.AppendRecords(t.Context(), h.Zone+".", rec); err != nil {
		t.Fatal(err)
	}
	h.want(t, "_acme-challenge.dot", "value")
	if _, err := h.Client.DeleteRecords(t.Context(), h.Zone+".", rec); err != nil {
		t.Fatal(err)
	}
	h.want(t, "_acme-challenge.dot")
}

func names(t *testing.T, h Harness) {
	for _, name := range []string{"@", "_acme-challenge", "_acme-challenge.a.b.c", "_acme-challenge.xn--bcher-kva", "_acme-challenge." + strings.Split(h.Zone, ".")[0]} {
		h.add(t, txt(name, "value"))
		h.want(t, name, "value")
		h.remove(t, txt(name, "value"))
		h.want(t, name)
	}
}

func twoValues(t *testing.T, h Harness) {
	h.add(t, txt("_acme-challenge.two", "one"), txt("_acme-challenge.two", "other"))
	h.want(t, "_acme-challenge.two", "one", "other")
	h.remove(t, txt("_acme-challenge.two", "one"))
	h.want(t, "_acme-challenge.two", "other")
	h.remove(t, txt("_acme-challenge.two", "other"))
	h.want(t, "_acme-challenge.two")
}

func foreignValues(t *testing.T, h Harness) {
	const name = "_acme-challenge.shared"
	if err := h.Put(t.Context(), h.full(name), "theirs"); err != nil {
		t.Fatal(err)
	}
	h.add(t, txt(name, "ours"))
	h.want(t, name, "ours", "theirs")
	h.remove(t, txt(name, "ours"))
	h.want(t, name, "theirs")
	// A value that holds another one isn't that one.
	h.remove(t, txt(name, "their"))
	h.want(t, name, "theirs")
}

func oddValue(t *testing.T, h Harness) {
	const name, value = "_acme-challenge.odd", "a;b (c) $d @ 'e' #f <g> &h %i `j` {k} ~ *"
	h.add(t, txt(name, value))
	h.want(t, name, value)
	h.remove(t, txt(name, value))
	h.want(t, name)
}

func addTwice(t *testing.T, h Harness) {
	for range 2 {
		h.add(t, txt("_acme-challenge.twice", "value"))
		h.want(t, "_acme-challenge.twice", "value")
	}
	// Half of it is there, and the other half must not be forgotten.
	h.add(t, txt("_acme-challenge.twice", "value"), txt("_acme-challenge.twice", "new"))
	h.want(t, "_acme-challenge.twice", "new", "value")
	h.remove(t, txt("_acme-challenge.twice", "value"), txt("_acme-challenge.twice", "new"))
}

func removeAbsent(t *testing.T, h Harness) {
	h.remove(t, txt("_acme-challenge.absent", "value"))
	h.add(t, txt("_acme-challenge.there", "value"))
	for range 2 {
		h.remove(t, txt("_acme-challenge.absent", "value"), txt("_acme-challenge.there", "value"))
		h.want(t, "_acme-challenge.there")
	}
}

func ttl(t *testing.T, h Harness) {
	rec := txt("_acme-challenge.ttl", "value")
	rec.TTL = 2 * time.Minute
	h.add(t, rec)
	want := max(rec.TTL, h.MinTTL)
	if got, err := h.TTL(t.Context(), h.full(rec.Name)); err != nil || got != want {
		t.Errorf("TTL is %v, %v; want %v", got, err, want)
	}
	rec.TTL = time.Hour // a removal goes by the value alone
	h.remove(t, rec)
	h.want(t, rec.Name)
}

func hundred(t *testing.T, h Harness) {
	var recs []libdns.Record
	for i := range 100 {
		recs = append(recs, txt(fmt.Sprintf("_acme-challenge.many%d", i/2), fmt.Sprintf("value%d", i)))
	}
	h.add(t, recs...)
	h.wantAll(t, recs)
	h.remove(t, recs...)
	h.wantAll(t, nil)
}

func concurrent(t *testing.T, h Harness) {
	each := func(do func(*testing.T, Harness, libdns.Record)) (recs []libdns.Record) {
		var wg sync.WaitGroup
		for i := range 8 {
			rec := txt(fmt.Sprintf("_acme-challenge.many%d", i/2), fmt.Sprintf("value%d", i))
			recs = append(recs, rec)
			wg.Go(func() { do(t, h, rec) })
		}
		wg.Wait()
		return recs
	}
	recs := each(func(t *testing.T, h Harness, rec libdns.Record) {
		if _, err := h.Client.AppendRecords(t.Context(), h.Zone, []libdns.Record{rec}); err != nil {
			t.Error(err)
		}
	})
	h.wantAll(t, recs)
	each(func(t *testing.T, h Harness, rec libdns.Record) {
		if _, err := h.Client.DeleteRecords(t.Context(), h.Zone, []libdns.Record{rec}); err != nil {
			t.Error(err)
		}
	})
	h.wantAll(t, nil)
}

func crossing(t *testing.T, h Harness) {
	const name = "_acme-challenge.crossing"
	if err := h.Put(t.Context(), h.full(name), "theirs"); err != nil {
		t.Fatal(err)
	}
	want := []string{"theirs"}
	var leaving []libdns.Record
	for i := range 4 {
		leaving = append(leaving, txt(name, fmt.Sprint("old", i)))
		want = append(want, fmt.Sprint("new", i))
	}
	h.add(t, leaving...)
	var wg sync.WaitGroup
	for i, rec := range leaving {
		wg.Go(func() {
			if _, err := h.Client.DeleteRecords(t.Context(), h.Zone, []libdns.Record{rec}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := h.Client.AppendRecords(t.Context(), h.Zone, []libdns.Record{txt(name, fmt.Sprint("new", i))}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	h.want(t, name, want...)
	for i := range leaving {
		h.remove(t, txt(name, fmt.Sprint("new", i)))
	}
	h.want(t, name, "theirs")
}

func cancelled(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	recs := []libdns.Record{txt("_acme-challenge.cancelled", "value")}
	if _, err := h.Client.AppendRecords(ctx, h.Zone, recs); !errors.Is(err, context.Canceled) {
		t.Errorf("AppendRecords returned %v, want context.Canceled", err)
	}
	h.want(t, "_acme-challenge.cancelled")
	h.add(t, recs...)
	if _, err := h.Client.DeleteRecords(ctx, h.Zone, recs); !errors.Is(err, context.Canceled) {
		t.Errorf("DeleteRecords returned %v, want context.Canceled", err)
	}
	h.want(t, "_acme-challenge.cancelled", "value")
	h.remove(t, recs...)
}

// cancelledOnTheWay cancels calls after different times, so that some are on their way wherever it is run.
func cancelledOnTheWay(t *testing.T, h Harness) {
	var recs []libdns.Record
	for i := range 20 {
		recs = append(recs, txt("_acme-challenge.cancelled", fmt.Sprint("value", i)))
	}
	for delay := 100 * time.Microsecond; delay < 100*time.Millisecond; delay *= 4 {
		for _, call := range []func(context.Context, string, []libdns.Record) ([]libdns.Record, error){h.Client.AppendRecords, h.Client.DeleteRecords} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(delay, cancel)
			if _, err := call(ctx, h.Zone, recs); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled after %v: %v", delay, err)
			}
			cancel()
		}
		// A server may get to a cancelled request only now, so one removal may be too early.
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			h.remove(t, recs...)
			all, err := h.TXT(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			left := all[h.full("_acme-challenge.cancelled")]
			if len(left) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%q can't be removed", left)
			}
		}
	}
}

func refused(t *testing.T, h Harness) {
	h.add(t, txt("_acme-challenge.kept", "value"))
	for _, rec := range []libdns.Record{
		txt("_acme-challenge.kept", ""), // would remove every value
		libdns.RR{Name: "_acme-challenge.kept"},
		libdns.RR{Name: "_acme-challenge.kept", Type: "A", Data: "192.0.2.1"},
		txt("_acme-challenge.kept 60 IN TXT injected\nother", "value"),
		txt("_acme-challenge.kept", `"quoted" "strings"`),
		txt("_acme-challenge.kept", strings.Repeat("x", 256)),
	} {
		if _, err := h.Client.AppendRecords(t.Context(), h.Zone, []libdns.Record{rec}); err == nil {
			t.Errorf("AppendRecords took %#v", rec)
		}
		if _, err := h.Client.DeleteRecords(t.Context(), h.Zone, []libdns.Record{rec}); err == nil {
			t.Errorf("DeleteRecords took %#v", rec)
		}
	}
	h.want(t, "_acme-challenge.kept", "value")
	h.remove(t, txt("_acme-challenge.kept", "value"))
}

func txt(name, value string) libdns.TXT {
	return libdns.TXT{Name: name, TTL: time.Minute, Text: value}
}

// full returns a name relative to the zone as the server has it.
func (h Harness) full(name string) string {
	if name == "@" {
		return h.Zone
	}
	return name + "." + h.Zone
}

func (h Harness) add(t *testing.T, recs ...libdns.Record) []libdns.Record {
	t.Helper()
	got, err := h.Client.AppendRecords(t.Context(), h.Zone, recs)
	if err != nil {
		t.Fatalf("AppendRecords: %v", err)
	}
	return got
}

func (h Harness) remove(t *testing.T, recs ...libdns.Record) {
	t.Helper()
	if _, err := h.Client.DeleteRecords(t.Context(), h.Zone, recs); err != nil {
		t.Fatalf("DeleteRecords: %v", err)
	}
}

// want checks the values at one name.
func (h Harness) want(t *testing.T, name string, values ...string) {
	t.Helper()
	all, err := h.TXT(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(slices.Values(all[h.full(name)])); !slices.Equal(got, values) {
		t.Fatalf("the server has %q at %s, want %q", got, name, values)
	}
}

// wantAll checks that of the names that begin with "_acme-challenge.many" the server has exactly recs.
func (h Harness) wantAll(t *testing.T, recs []libdns.Record) {
	t.Helper()
	all, err := h.TXT(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for name, values := range all {
		for _, v := range values {
			if strings.HasPrefix(name, "_acme-challenge.many") {
				got = append(got, name+" "+v)
			}
		}
	}
	for _, r := range recs {
		want = append(want, h.full(r.RR().Name)+" "+r.RR().Data)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("the server has %d values %q, want %d: %q", len(got), got, len(want), want)
	}
}
