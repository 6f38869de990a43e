package knownca

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"autocertd/internal/printable"
)

// A Rate allows Count events at once, and one more after each Per/Count: a token bucket. The zero Rate allows all.
type Rate struct {
	Count int
	Per   time.Duration
}

// Limited reports whether the rate forbids anything.
func (r Rate) Limited() bool { return r.Count > 0 }

// Each is how long it takes until one more is allowed.
func (r Rate) Each() time.Duration { return r.Per / time.Duration(r.Count) }

// String writes the rate as it is read.
func (r Rate) String() string {
	if !r.Limited() {
		return unlimited
	}
	return fmt.Sprintf("%d per %s", r.Count, r.Time())
}

// Time writes Per in its largest whole unit.
func (r Rate) Time() string {
	switch {
	case r.Per%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", r.Per/(24*time.Hour))
	case r.Per%time.Hour == 0:
		return fmt.Sprintf("%dh", r.Per/time.Hour)
	case r.Per%time.Minute == 0:
		return fmt.Sprintf("%dm", r.Per/time.Minute)
	}
	return r.Per.String()
}

const (
	unlimited = "none"
	rateHint  = `write a number and a time, as in "50 per 7d" or "300 per 3h", or "none"`

	shortestEach = time.Microsecond
	longestRate  = 366 * 24 * time.Hour
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	*r = Rate{}
	if string(text) == unlimited {
		return nil
	}
	count, per, _ := strings.Cut(string(text), " per ")
	n, err := strconv.Atoi(count)
	d, err2 := rateTime(per)
	if err != nil || err2 != nil || n < 1 || d > longestRate || d/time.Duration(max(n, 1)) < shortestEach {
		return fmt.Errorf("%q is no limit; %s", printable.Short(string(text), 80), rateHint)
	}
	r.Count, r.Per = n, d
	return nil
}

// rateTime reads a duration, which may be in days.
func rateTime(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 10)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

// Limits bound the use of one account at a CA. The zero Limits allow all.
type Limits struct {
	Orders   Rate // new orders
	Domain   Rate // certificates for one registered domain
	Set      Rate // certificates for exactly the same hostnames
	Failures Rate // failed validations of one hostname
	// FreeRenewals says that a certificate for the same hostnames as one before counts for Set alone.
	FreeRenewals bool
}

// Any reports whether anything is limited.
func (l Limits) Any() bool {
	return l.Orders.Limited() || l.Domain.Limited() || l.Set.Limited() || l.Failures.Limited()
}
