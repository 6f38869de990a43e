// Package budget computes what a CA's limits leave: orders, certificates and failed validations are token buckets, and a
// plan says when each certificate finds room in all of its buckets. It works on values alone; where they are kept, and who
// may change them, is left to lifecycle.
package budget

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"autocertd/internal/dnsname"
	"autocertd/internal/knownca"
)

// A Key names one bucket of one account at one CA: which limit, and for what.
type Key string

const orders Key = "orders"

// The limits that have a bucket for each of something.
const (
	domainPrefix  = "domain "
	setPrefix     = "set "
	failurePrefix = "failures "
)

// Keys returns the buckets that a certificate for the hostnames takes from. A renewal takes from fewer at some CAs.
func Keys(l knownca.Limits, hostnames []string, renewal bool) (keys []Key) {
	if !(renewal && l.FreeRenewals) {
		if l.Orders.Limited() {
			keys = append(keys, orders)
		}
		if l.Domain.Limited() {
			keys = append(keys, domainKeys(hostnames)...)
		}
	}
	if l.Set.Limited() {
		keys = append(keys, setKey(hostnames))
	}
	return keys
}

// FailureKeys returns the buckets that failed validations of the hostnames take from. A CA validates nothing more for a
// hostname whose bucket is empty.
func FailureKeys(l knownca.Limits, hostnames []string) (keys []Key) {
	if !l.Failures.Limited() {
		return nil
	}
	for _, h := range hostnames {
		keys = append(keys, Key(failurePrefix+dnsname.Base(h)))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func domainKeys(hostnames []string) (keys []Key) {
	for _, h := range hostnames {
		keys = append(keys, Key(domainPrefix+RegisteredDomain(h)))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// setKey names a set of hostnames whatever their order. It is a hash, since a hundred hostnames are long.
func setKey(hostnames []string) Key {
	names := slices.Sorted(slices.Values(hostnames))
	sum := sha256.Sum256([]byte(strings.Join(names, ",")))
	return Key(setPrefix + hex.EncodeToString(sum[:8]))
}

// RegisteredDomain returns the domain under which CAs count a hostname: the part that is bought, by the public suffix list. A
// hostname that is a public suffix counts under itself.
func RegisteredDomain(hostname string) string {
	name := dnsname.Base(hostname)
	domain, _ := publicsuffix.EffectiveTLDPlusOne(name) // the error is of names like "localhost"
	return cmp.Or(domain, name)
}

// rate is the limit of a bucket.
func rate(l knownca.Limits, key Key) knownca.Rate {
	switch k := string(key); {
	case key == orders:
		return l.Orders
	case strings.HasPrefix(k, domainPrefix):
		return l.Domain
	case strings.HasPrefix(k, setPrefix):
		return l.Set
	case strings.HasPrefix(k, failurePrefix):
		return l.Failures
	}
	return knownca.Rate{}
}

// Describe says a limit in words.
func Describe(l knownca.Limits, key Key) string {
	allowed, what := rate(l, key), ""
	switch k := string(key); {
	case key == orders:
		what = "orders of this account"
	case strings.HasPrefix(k, domainPrefix):
		what = "certificates for " + strings.TrimPrefix(k, domainPrefix)
	case strings.HasPrefix(k, setPrefix):
		what = "certificates for exactly these hostnames"
	default:
		what = "failed validations of " + strings.TrimPrefix(k, failurePrefix)
	}
	return fmt.Sprintf("the CA allows %d %s in %s", allowed.Count, what, allowed.Time())
}
