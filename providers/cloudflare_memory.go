package providers

import (
	"maps"
	"sync"
	"time"
)

// hideTime is how long a record that was confirmed may be missing from Cloudflare's search, by our patience.
const hideTime = 10 * time.Minute

// recentRecords remembers which records the API has confirmed lately. A search that doesn't show one of them lags behind;
// for any other record it is believed.
type recentRecords struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (r *recentRecords) add(name, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = make(map[string]time.Time)
	}
	maps.DeleteFunc(r.at, func(_ string, at time.Time) bool { return time.Since(at) > hideTime })
	r.at[name+" "+value] = time.Now()
}

func (r *recentRecords) remove(name, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.at, name+" "+value)
}

func (r *recentRecords) has(name, value string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.at[name+" "+value]
	return ok && time.Since(at) <= hideTime
}
