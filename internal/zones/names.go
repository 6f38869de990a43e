package zones

import (
	"golang.org/x/sync/errgroup"
)

// Zone is a zone as one provider writes it.
type Zone struct{ Provider, Name string }

// TXTName is a name in a zone that a provider writes. Names are lower case without trailing dot.
type TXTName struct{ Provider, Zone, Name string }

// TXT is exactly one value, at one name, in one zone, written by one provider. Names are lower case without trailing dot.
type TXT struct{ Provider, Zone, Name, Value string }

// In returns the zone that holds the value.
func (t TXT) In() Zone { return Zone{t.Provider, t.Zone} }

// distinct returns each value once.
func distinct[T comparable](list []T) (result []T) {
	known := map[T]bool{}
	for _, v := range list {
		if !known[v] {
			known[v] = true
			result = append(result, v)
		}
	}
	return result
}

// atATime bounds how many questions of one call are asked at a time.
const atATime = 16

// each calls f for 0 to n-1, a few at a time.
func each(n int, f func(i int)) {
	var group errgroup.Group
	group.SetLimit(atATime)
	for i := range n {
		group.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = group.Wait() // f keeps its errors
}
