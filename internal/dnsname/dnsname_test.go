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

func TestSame(t *testing.T) {
	given := []string{"b", "a"}
	if !dnsname.Same(given, []string{"a", "b"}) || dnsname.Same(given, []string{"a"}) || dnsname.Same(given, []string{"a", "c"}) || given[0] != "b" {
		t.Errorf("same: %v", given)
	}
	if dnsname.Base("*.example.test") != "example.test" || dnsname.Base("www.example.test") != "www.example.test" {
		t.Error("only a star is left out")
	}
}
