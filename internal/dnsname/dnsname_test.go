package dnsname_test

import (
	"testing"

	"autocertd/internal/dnsname"
)

func TestIn(t *testing.T) {
	for _, tt := range []struct {
		name, zone string
		want       bool
	}{
		{"Example.Test.", "example.test", true},
		{"www.example.test", "example.test", true},
		{"a.b.example.test", "example.test", true},
		{"notexample.test", "example.test", false},
		{"test", "example.test", false},
		{"", "example.test", false},
	} {
		if got := dnsname.In(dnsname.Canonical(tt.name), tt.zone); got != tt.want {
			t.Errorf("%q in %q: %t", tt.name, tt.zone, got)
		}
	}
}
