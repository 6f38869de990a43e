// Package dnsname brings names of DNS into one form, and says which zone holds a name.
package dnsname

import "strings"

// Canonical returns a name as the program keeps it: lower case, without the trailing dot.
func Canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// In reports whether a name is a zone's apex or below it. Both are canonical.
func In(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }
