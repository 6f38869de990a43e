package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"autocertd/internal/event"
	"autocertd/internal/state"
)

// told holds the kinds of events that the tests of this package made, each through a manager, a CA and a DNS server.
var told sync.Map

// elsewhere are the kinds of events of this package that its own tests don't make, and why.
var elsewhere = map[string]string{
	"RecordWanted":    "tests of the command add records",
	"RecordRemovable": "tests of the command add records",
	"OrdersNotListed": "tests of the command take the right to read",
	"NoRenewalInfo":   "a single question that fails",
	"ContactNotSent":  "a single question that fails",
	"OrderNotCounted": "a single write that fails",
	"KeyNotMarked":    "a single write that fails",
}

// TestMain wants each kind of event that this package names to be made by a test.
func TestMain(m *testing.M) {
	status := m.Run()
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		for _, kind := range unmade() {
			fmt.Printf("no test makes the event %s\n", kind)
			status = max(status, 1)
		}
	}
	os.Exit(status)
}

// unmade returns the names of kinds in the source of this package that no test made.
func unmade() (list []string) {
	table, err := os.ReadFile("../event/kinds.go")
	if err != nil {
		return []string{err.Error()}
	}
	files, _ := filepath.Glob("*.go")
	var source strings.Builder
	for _, path := range files {
		if !strings.HasSuffix(path, "_test.go") {
			text, _ := os.ReadFile(path)
			source.Write(text)
		}
	}
	for _, found := range regexp.MustCompile(`(\w+) +Kind = "([^"]+)"`).FindAllStringSubmatch(string(table), -1) {
		_, made := told.Load(event.Kind(found[2]))
		if named := regexp.MustCompile(`\bevent\.` + found[1] + `\b`).MatchString(source.String()); named && !made && elsewhere[found[1]] == "" {
			list = append(list, found[1])
		}
	}
	return list
}

func record(e event.Event) { told.Store(e.Kind, true) }

// TestRehearsalIsTold goes through an issuance that works, and one whose records are refused.
func TestRehearsalIsTold(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	if err := p.Rehearse(p.ctx, name); err != nil {
		t.Fatal(err)
	}
	w.dns.OnUpdate(refuseAll)
	if err := p.Rehearse(p.ctx, name); err == nil {
		t.Error("it works without records")
	}
	w.dns.OnUpdate(nil)
}

// TestUnreadableMark tells that a mark of a compromised key can't be read, which counts for none of another key.
func TestUnreadableMark(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	if err := state.MarkKey(p.ctx, p.store, []byte("another"), state.CompromisedKey{Serial: "01"}); err != nil {
		t.Fatal(err)
	}
	p.store.breaks(fault{Op: "Load", Prefix: "compromised/", Always: true})
	p.look()
	if n := w.cas[0].NewOrders(); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}
