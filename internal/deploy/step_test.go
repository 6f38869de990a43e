package deploy

import (
	"encoding/json"
	"testing"
)

// TestEarlierState has the state of an earlier version, with one mark for all steps of an output.
func TestEarlierState(t *testing.T) {
	b := newBundle(t, host)
	o := Output{Dir: t.TempDir(), Reload: []string{"nginx.service"}, Run: [][]string{{"push"}}}
	runner := &counter{}
	d := New(Config{Run: runner})
	apply(t, d, b, o, nil)
	runner.taken()
	for name, tt := range map[string]struct {
		bundle Bundle
		runs   int
	}{"of this bundle": {b, 0}, "of another": {newBundle(t, host), 2}} {
		var st State
		data, err := json.Marshal(map[string]string{o.ID(host): wholeMark(o, tt.bundle)})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &st); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(st); err != nil || string(again) != string(data) {
			t.Errorf("%s: saved as %s, want %s", name, again, data)
		}
		res := apply(t, d, b, o, st)
		if got := runner.taken(); len(got) != tt.runs || !finished(res, o) {
			t.Errorf("%s: ran %q, want %d; %+v", name, got, tt.runs, res.State)
		}
	}
}
