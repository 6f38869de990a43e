package dns01

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"
)

func TestDeliver(t *testing.T) {
	search := func(n int) int { return int(math.Ceil(math.Log2(float64(n)))) + 2 }
	refused := errors.New("refused")
	tests := []struct {
		name     string
		records  int
		removals bool
		culprits []int
		err      func(call int) error // of a call that holds a culprit; nil: refused
		cancel   bool                 // the context ends with the first call
		failed   []int
		maxCalls int
		took     time.Duration
	}{
		{name: "one record is one call", records: 1, maxCalls: 1},
		{name: "all that are fine are one call", records: 100, maxCalls: 1},
		{name: "the first is refused alone", records: 100, culprits: []int{0}, failed: []int{0}, maxCalls: 1 + search(100)},
		{name: "one in the middle is refused alone", records: 100, culprits: []int{57}, failed: []int{57}, maxCalls: 1 + search(100)},
		{name: "the last is refused alone", records: 100, culprits: []int{99}, failed: []int{99}, maxCalls: 1 + search(100)},
		{name: "two are refused alone", records: 100, culprits: []int{3, 80}, failed: []int{3, 80}, maxCalls: 1 + 2*search(100)},
		{name: "one alone isn't split", records: 1, culprits: []int{0}, failed: []int{0}, maxCalls: 1},
		{name: "what isn't one record's fault isn't split", records: 4, culprits: []int{2}, maxCalls: 1,
			err: func(int) error { return broken{refused} }, failed: []int{0, 1, 2, 3}},
		{name: "a search ends at what isn't one record's fault", records: 4, culprits: []int{0}, maxCalls: 2,
			err: func(call int) error {
				if call == 1 {
					return refused
				}
				return broken{refused}
			}, failed: []int{0, 1, 2, 3}},
		{name: "what heals is sent again as it was", records: 4, culprits: []int{2}, maxCalls: 2, took: 200 * time.Millisecond,
			err: func(call int) error {
				if call == 1 {
					return later{refused}
				}
				return nil
			}},
		{name: "what doesn't heal and is one record's fails alone", records: 100, culprits: []int{57}, failed: []int{57},
			maxCalls: 3 + search(100), took: 1200 * time.Millisecond, err: func(int) error { return later{refused} }},
		{name: "five such records fail alone", records: 100, culprits: []int{7, 21, 57, 58, 99}, failed: []int{7, 21, 57, 58, 99},
			maxCalls: 3 + 5*search(100), took: 1200 * time.Millisecond, err: func(int) error { return later{refused} }},
		{name: "what doesn't heal and is everybody's takes few calls", records: 200, culprits: upTo(200), failed: upTo(200),
			maxCalls: 3 + culpritsAtMost*(search(200)+1) + 1, took: 1200 * time.Millisecond, err: func(int) error { return later{refused} }},
		{name: "many at the beginning don't speak for all", records: 100, culprits: upTo(8), failed: upTo(8),
			maxCalls: 3 + 8*search(100) + culpritsAtMost, took: 1200 * time.Millisecond, err: func(int) error { return later{refused} }},
		{name: "each of many that are refused has its own words", records: 30, culprits: upTo(30), failed: upTo(30),
			maxCalls: 30 * search(30), err: func(call int) error { return fmt.Errorf("refusal %d", call) }},
		{name: "silence isn't divided", records: 4, culprits: []int{2}, maxCalls: 1,
			err: func(int) error { return saying(true) }, failed: []int{0, 1, 2, 3}},
		{name: "removals are divided whatever was answered", removals: true, records: 100, culprits: []int{57}, failed: []int{57},
			maxCalls: 1 + search(100), err: func(int) error { return broken{refused} }},
		{name: "removals that are all refused take few calls", removals: true, records: 200, culprits: upTo(200), failed: upTo(200),
			maxCalls: 1 + culpritsAtMost*(search(200)+1) + 1, err: func(int) error { return broken{refused} }},
		{name: "removals aren't divided by silence", removals: true, records: 4, culprits: []int{2}, maxCalls: 1,
			err: func(int) error { return saying(true) }, failed: []int{0, 1, 2, 3}},
		{name: "once cancelled nothing is tried again", records: 4, culprits: []int{2}, cancel: true, maxCalls: 1,
			err: func(int) error { return later{refused} }, failed: []int{0, 1, 2, 3}},
		{name: "once cancelled nothing is split", records: 4, culprits: []int{2}, cancel: true, maxCalls: 1, failed: []int{0, 1, 2, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				made := 0
				begin := time.Now()
				divisible := byItsRecords
				if tt.removals {
					divisible = byAnyAnswer
				}
				results, calls := deliver(ctx, numbered(tt.records), divisible, func(part []libdns.Record) error {
					made++
					if tt.cancel {
						cancel()
					}
					if !slices.ContainsFunc(part, func(r libdns.Record) bool { return isCulprit(r, tt.culprits) }) {
						return nil
					}
					if tt.err != nil {
						return tt.err(made)
					}
					return refused
				})
				if got := failedOnes(results); !slices.Equal(got, tt.failed) {
					t.Errorf("records %v failed, want %v", got, tt.failed)
				}
				if calls != made || calls > tt.maxCalls {
					t.Errorf("%d calls, reported as %d; want at most %d", made, calls, tt.maxCalls)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("it took %s, want %s", took, tt.took)
				}
			})
		})
	}
}

// TestDeliverUnsure has calls write what they report as failed: what a later call refuses may be in the zone all the same, until
// one of its calls succeeds.
func TestDeliverUnsure(t *testing.T) {
	refused := errors.New("refused")
	tests := []struct {
		name     string
		first    error   // of the whole group, at each try
		then     []error // of record 0 and record 1 alone
		unsure   []int
		fail     []int
		original error
	}{
		{"refused at once", refused, []error{refused, nil}, nil, []int{0}, refused},
		{"refused after a failure that may have written it", later{errors.New("lost")}, []error{refused, nil}, []int{0}, []int{0}, refused},
		{"both are", later{errors.New("lost")}, []error{refused, refused}, []int{0, 1}, []int{0, 1}, refused},
		{"silence ends it", later{errors.New("lost")}, []error{context.DeadlineExceeded, nil}, []int{0, 1}, []int{0, 1}, context.DeadlineExceeded},
		{"cancelled", refused, []error{context.Canceled, nil}, []int{0}, []int{0}, context.Canceled},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			results, _ := deliver(t.Context(), numbered(2), byItsRecords, func(part []libdns.Record) error {
				switch {
				case len(part) == 2:
					return tt.first
				case isCulprit(part[0], []int{0}):
					return tt.then[0]
				}
				return tt.then[1]
			})
			var unsure []int
			for i, err := range results {
				if err != nil && uncertain(err) {
					unsure = append(unsure, i)
				}
				if err != nil && !errors.Is(err, tt.original) {
					t.Errorf("%s: record %d: %v", tt.name, i, err)
				}
			}
			if got := failedOnes(results); !slices.Equal(got, tt.fail) || !slices.Equal(unsure, tt.unsure) {
				t.Errorf("%s: %v failed and %v may be in the zone, want %v and %v", tt.name, got, unsure, tt.fail, tt.unsure)
			}
		})
	}
}

// TestDeliverSamplesAfterCulprits searches four culprits by halves, and only then sends some of the rest alone.
func TestDeliverSamplesAfterCulprits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		deliver(t.Context(), numbered(16), byItsRecords, func(part []libdns.Record) error {
			sizes = append(sizes, len(part))
			return later{errors.New("refused")}
		})
		if want := []int{16, 16, 16, 8, 4, 2, 1, 15, 7, 3, 1, 14, 7, 3, 1, 13, 6, 3, 1, 1, 1, 1, 1}; !slices.Equal(sizes, want) {
			t.Errorf("calls with %v records, want %v", sizes, want)
		}
	})
}

// upTo are the numbers from 0 to n-1.
func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

func numbered(n int) []libdns.Record {
	records := make([]libdns.Record, n)
	for i := range records {
		records[i] = libdns.TXT{Text: fmt.Sprint(i)}
	}
	return records
}

func isCulprit(r libdns.Record, culprits []int) bool {
	return slices.ContainsFunc(culprits, func(c int) bool { return r.RR().Data == fmt.Sprint(c) })
}

func failedOnes(results []error) (failed []int) {
	for i, err := range results {
		if err != nil {
			failed = append(failed, i)
		}
	}
	return failed
}
