package dns01

import (
	"testing"
	"time"
)

func TestHistory(t *testing.T) {
	ms := time.Millisecond
	tests := []struct {
		name    string
		delays  map[time.Duration]int // and how often
		usually time.Duration
	}{
		{"a server that was never asked", nil, 0},
		{"too few records to call it usual", map[time.Duration]int{0: historyLeast - 1}, 0},
		{"enough of them, all at once", map[time.Duration]int{0: historyLeast}, historyFirst},
		{"a delay at the end of its bucket stays in it", map[time.Duration]int{125 * ms: 10}, 125 * ms},
		{"a delay just beyond goes into the next", map[time.Duration]int{126 * ms: 10}, 250 * ms},
		{"one slow record in a hundred isn't usual", map[time.Duration]int{time.Minute: 1, 200 * ms: 99}, 250 * ms},
		{"two slow ones are", map[time.Duration]int{time.Minute: 2, 200 * ms: 98}, 64 * time.Second},
		{"the longest that propagation_timeout can be", map[time.Duration]int{24 * time.Hour: 10}, historyFirst << 23},
		{"longer than anything", map[time.Duration]int{1000 * time.Hour: 10}, historyFirst << 23},
		{"what was slow long ago is forgotten", map[time.Duration]int{time.Minute: 60, 200 * ms: 5 * historyMost}, 250 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h history
			for _, delay := range []time.Duration{time.Minute, 0, 125 * ms, 126 * ms, 200 * ms, 24 * time.Hour, 1000 * time.Hour} {
				for range tt.delays[delay] {
					h.add(delay)
				}
			}
			if got := h.usually(); got != tt.usually {
				t.Errorf("usually within %s, want %s", got, tt.usually)
			}
			if h.count() >= historyMost {
				t.Errorf("it remembers %d sightings", h.count())
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	ms, limit := time.Millisecond, 2*time.Minute
	tests := []struct {
		name  string
		usual []time.Duration
		limit time.Duration
		want  time.Duration
	}{
		{"without any server there is no history", nil, limit, limit},
		{"a server without history gets all the time", []time.Duration{0}, limit, limit},
		{"so does one among others", []time.Duration{250 * ms, 0}, limit, limit},
		{"fast servers get ten seconds", []time.Duration{250 * ms, 500 * ms}, limit, 10 * time.Second},
		{"others get five times what the slowest needs", []time.Duration{250 * ms, 8 * time.Second}, limit, 40 * time.Second},
		{"but not more than the limit", []time.Duration{64 * time.Second}, limit, limit},
		{"even if that is less than ten seconds", []time.Duration{250 * ms}, time.Second, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := deadline(tt.limit, tt.usual); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
