// Package dnsname brings names of DNS into one form, and says which zone holds a name.
package dnsname

import (
	"slices"
	"strings"
)

// Canonical returns a name as the program keeps it: lower case, without the trailing dot.
func Canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// In reports whether a name is a zone's apex or below it. Both are canonical.
func In(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }

// Base returns a hostname without the star of a wildcard, which is proven by the same name (RFC 8555, section 7.1.4).
func Base(hostname string) string { return strings.TrimPrefix(hostname, "*.") }

// Same reports whether two lists hold the same names, in whatever order.
func Same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
