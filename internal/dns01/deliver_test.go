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
		{name: "what doesn't heal fails after three calls", records: 4, culprits: []int{2}, maxCalls: 3, took: 1200 * time.Millisecond,
			err: func(int) error { return later{refused} }, failed: []int{0, 1, 2, 3}},
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
				results, calls := deliver(ctx, numbered(tt.records), func(part []libdns.Record) error {
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
