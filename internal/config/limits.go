package config

import "autocertd/internal/knownca"

// A rawLimits mirrors the table [ca.NAME.limits].
type rawLimits struct {
	Orders       field[knownca.Rate] `toml:"orders"`
	Domain       field[knownca.Rate] `toml:"certificates_per_domain"`
	Set          field[knownca.Rate] `toml:"certificates_per_set"`
	Failures     field[knownca.Rate] `toml:"failed_validations"`
	FreeRenewals field[bool]         `toml:"free_renewals"`
}

// overrides are what a table says of limits; nil is nothing.
type overrides struct {
	orders, domain, set, failures *knownca.Rate
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
func (ca CA) Limits() knownca.Limits {
	l, set := knownca.At(ca.Directory).Limits, ca.limits
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

// MostNames returns how many hostnames a certificate of a profile may have at the CA, 0 when it isn't known.
func (ca CA) MostNames(profile string) int {
	return knownca.At(ca.Directory).Profile(profile).MostNames
}
