package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
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
		return fmt.Errorf("%q is no limit; %s", shorten(string(text)), rateHint)
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

// Limits are what a CA allows one account. The zero Limits allow all.
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

// Directories of Let's Encrypt.
const (
	letsencrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	letsencryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// knownLimits returns what a CA is known to allow, late in 2026.
func knownLimits(directory string) Limits {
	const hour, week = time.Hour, 7 * 24 * time.Hour
	switch directory {
	case letsencrypt:
		return Limits{Orders: Rate{300, 3 * hour}, Domain: Rate{50, week}, Set: Rate{5, week}, Failures: Rate{5, hour}, FreeRenewals: true}
	case letsencryptStaging:
		return Limits{Orders: Rate{1500, 3 * hour}, Domain: Rate{30_000, week}, Set: Rate{30_000, week}, Failures: Rate{200, hour}, FreeRenewals: true}
	}
	return Limits{}
}

// A rawLimits mirrors the table [ca.NAME.limits].
type rawLimits struct {
	Orders       field[Rate] `toml:"orders"`
	Domain       field[Rate] `toml:"certificates_per_domain"`
	Set          field[Rate] `toml:"certificates_per_set"`
	Failures     field[Rate] `toml:"failed_validations"`
	FreeRenewals field[bool] `toml:"free_renewals"`
}

// overrides are what a table says of limits; nil is nothing.
type overrides struct {
	orders, domain, set, failures *Rate
	freeRenewals                  *bool
}

func (r rawLimits) overrides() overrides {
	return overrides{given(r.Orders), given(r.Domain), given(r.Set), given(r.Failures), given(r.FreeRenewals)}
}

func given[T any](f field[T]) *T {
	if !f.ok {
		return nil
	}
	return &f.Value
}

// Limits returns what the CA allows: what its table says, else what is known of the CA.
func (ca CA) Limits() Limits {
	l, set := knownLimits(ca.Directory), ca.limits
	l.Orders = first(set.orders, l.Orders)
	l.Domain = first(set.domain, l.Domain)
	l.Set = first(set.set, l.Set)
	l.Failures = first(set.failures, l.Failures)
	l.FreeRenewals = first(set.freeRenewals, l.FreeRenewals)
	return l
}

func first[T any](given *T, otherwise T) T {
	if given != nil {
		return *given
	}
	return otherwise
}

// ProfileLifetime returns how long certificates of Let's Encrypt's profiles live, 0 for a profile that isn't known.
func ProfileLifetime(profile string, at time.Time) time.Duration {
	const day = 24 * time.Hour
	switch profile {
	case "shortlived":
		return 160 * time.Hour
	case "tlsserver":
		return 45 * day
	case "classic", "":
		switch {
		case at.Before(time.Date(2027, time.February, 10, 0, 0, 0, 0, time.UTC)):
			return 90 * day
		case at.Before(time.Date(2028, time.February, 16, 0, 0, 0, 0, time.UTC)):
			return 64 * day
		}
		return 45 * day
	}
	return 0
}

// MostNames returns how many hostnames a certificate of a profile may have at a CA, 0 when it isn't known.
func (ca CA) MostNames(profile string) int {
	if ca.Directory != letsencrypt && ca.Directory != letsencryptStaging {
		return 0
	}
	switch profile {
	case "shortlived", "tlsserver":
		return 25
	case "classic", "":
		return 100
	}
	return 0
}
