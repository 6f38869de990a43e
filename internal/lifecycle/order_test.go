package lifecycle

import (
	"log/slog"
	"testing"

	"autocertd/internal/storage"
	"autocertd/issuer"
)

// TestForcedOrder: who insists isn't kept waiting by an order that came to nothing before, and goes on with any other.
func TestForcedOrder(t *testing.T) {
	store, err := storage.OpenFiles(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	keep := keeper{store, orderObject("one", "web")}
	for _, tt := range []struct {
		name   string
		open   issuer.OpenOrder
		insist insistence
		goesOn bool
	}{
		{"on schedule", issuer.OpenOrder{URL: "https://ca/1", Failures: 1}, onSchedule, true},
		{"a person asks", issuer.OpenOrder{URL: "https://ca/1", Failures: 1}, byHand, true},
		{"a person insists", issuer.OpenOrder{URL: "https://ca/1"}, forced, true},
		{"a person insists after a failure", issuer.OpenOrder{URL: "https://ca/1", Failures: 1}, forced, false},
		{"a person insists after a long wait", issuer.OpenOrder{URL: "https://ca/1", Waited: true}, forced, false},
	} {
		if err := keep.Keep(t.Context(), tt.open); err != nil {
			t.Fatal(err)
		}
		j := &job{Manager: &Manager{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}, insist: tt.insist}
		if goesOn := j.openOrder(t.Context(), keep) != nil; goesOn != tt.goesOn {
			t.Errorf("%s: goes on with the order: %t, want %t", tt.name, goesOn, tt.goesOn)
		}
	}
}
