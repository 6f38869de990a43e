package budget

import (
	"encoding/json"
	"testing"
	"time"

	"autocertd/internal/knownca"
)

// FuzzLedger reads whatever a disk may hold as a ledger. It never keeps anybody waiting for longer than an empty bucket takes
// to fill, and what is saved of it is read again.
func FuzzLedger(f *testing.F) {
	f.Add([]byte(`{"full":{"orders":"2026-06-01T13:00:00Z"},"running":[{"id":"a1","pid":1,"since":"2026-06-01T11:59:00Z","keys":["orders"]}]}`))
	f.Add([]byte(`{"full":{"orders":"9999-12-31T23:59:59Z","domain:example.com":"0001-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"full":null,"running":[{"since":"2999-01-01T00:00:00Z","keys":[""]}]}`))
	f.Add([]byte(`{"running":[{"id":"a","keys":["orders"]},{"id":"a","keys":["orders","orders"]}]}`))
	f.Add([]byte(`{`))
	limits := knownca.Limits{Orders: knownca.Rate{Count: 3, Per: 3 * time.Hour}, Domain: knownca.Rate{Count: 2, Per: day}}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, _ := Open(data, limits)
		l.Advance(noon(), nobody)
		if len(l.Running) > 0 {
			t.Fatalf("dead processes still run %v", l.Running)
		}
		keys := Keys(limits, []string{"a.example.com"}, false)
		if at, key := l.Room(keys, noon(), nil); at.After(noon().Add(2 * day)) {
			t.Fatalf("room for %s at %s", key, at)
		}
		l.Spend(keys, noon())
		saved, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := Open(saved, limits); !ok {
			t.Fatalf("what was saved isn't read: %s", saved)
		}
	})
}
