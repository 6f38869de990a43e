package durable

import "testing"

func TestTellsFrom(t *testing.T) {
	for release, want := range map[string]bool{
		"4.19.0": false, "4.99.0": false, "5.7.19": false, "5.0.0-8": false,
		"5.8.0": true, "5.8.0-rc1": true, "5.10.0-21-amd64": true, "6.0.0": true, "6.1.0-18-amd64": true,
		"": false, "trunk": false,
	} {
		if got := tellsFrom(release); got != want {
			t.Errorf("kernel %q: %t, want %t", release, got, want)
		}
	}
}
