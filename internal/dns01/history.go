package dns01

import (
	"slices"
	"time"
)

// A history has room for a fixed number of delays, each of which is at most twice the one before.
const (
	historyFirst   = time.Second / 64
	historyBuckets = 24      // the last one is longer than a day
	historyMost    = 1 << 12 // sightings; then half of each bucket goes, so that what was long ago counts for less
	historyLeast   = 10      // before something is called usual: the first of a server that polls may come at once by chance
)

// history is how long it took, from the update on, until a server was seen to have each of its latest records.
type history [historyBuckets]int

func (h *history) add(delay time.Duration) {
	i := 0
	for i < historyBuckets-1 && delay > historyFirst<<i {
		i++
	}
	h[i]++
	if h.count() < historyMost {
		return
	}
	for i := range h {
		h[i] /= 2
	}
}

func (h *history) count() (n int) {
	for _, bucket := range h {
		n += bucket
	}
	return n
}

// within returns the delay that so many percent of the records didn't exceed, 0 when there were none.
func (h *history) within(percent int) time.Duration {
	rank := (h.count()*percent + 99) / 100
	for i, bucket := range h {
		if rank -= bucket; bucket > 0 && rank <= 0 {
			return historyFirst << i
		}
	}
	return 0
}

// usually is what nearly all records of the server stay below, 0 when it has had too few.
func (h *history) usually() time.Duration {
	if h.count() < historyLeast {
		return 0
	}
	return h.within(99)
}

// How long servers are waited for that have a history.
const (
	usualTimes    = 5
	deadlineLeast = 10 * time.Second
)

// deadline is how long to wait for servers that usually need so long: a multiple of what the slowest of them needs, and up
// to the limit when there is none or one has no history, 0.
func deadline(limit time.Duration, usual []time.Duration) time.Duration {
	if len(usual) == 0 || slices.Contains(usual, 0) {
		return limit
	}
	return min(max(usualTimes*slices.Max(usual), deadlineLeast), limit)
}
