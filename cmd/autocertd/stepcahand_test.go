//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStepCAByHand walks the steps of an order, each a process of its own, without any configuration. step-ca is asked too
// early first: its order lives on, and the records that are on their way into the zone stay the right ones.
func TestStepCAByHand(t *testing.T) {
	t.Parallel()
	s := newStepSite(t, time.Hour)
	name := "corp." + zone
	flags := []string{"--directory", s.ca.Directory(), "--roots", s.path("ca.pem"), "--state-dir", s.path("state"), "--nameserver", s.bind.Addr()}
	step := func(status int, args ...string) result {
		t.Helper()
		r := s.command(t, slices.Concat([]string{"order"}, args, flags)...)
		if r.status != status {
			t.Fatalf("order %v ends with %d:\n%s%s", args, r.status, r.stdout, r.stderr)
		}
		return r
	}
	step(exitDone, "new", name, "-d", name, "-d", "*."+name, "--accept-terms")
	script := step(exitDone, "records", name, "--format", "nsupdate").stdout
	if n := strings.Count(script, "update add _acme-challenge."+name+". "); n != 2 {
		t.Fatalf("there are %d records, want two at the one name:\n%s", n, script)
	}
	step(exitFailed, "check", name)
	r := step(exitFailed, "validate", name, "--unchecked")
	if !strings.Contains(r.stderr, "validation failed") || !strings.Contains(r.stderr, "the order is still open") {
		t.Errorf("validate doesn't say what failed and what is left:\n%s", r.stderr)
	}
	if again := step(exitDone, "records", name, "--format", "nsupdate").stdout; again != script {
		t.Errorf("the records were\n%sand are\n%s", script, again)
	}
	if out, err := nsupdate(t.Context(), s.bind, script); err != nil {
		t.Fatalf("nsupdate: %v: %s", err, out)
	}
	step(exitDone, "check", name)
	if r := step(exitDone, "validate", name); strings.Count(r.stdout, `"validated": "`) == 0 {
		t.Errorf("validate doesn't show the validations:\n%s", r.stdout)
	}
	step(exitDone, "finish", name, "--dir", s.dir)
	leaf, err := handPair(s.dir, name, s.ca.RootPEM())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"*." + name, name}; !slices.Equal(slices.Sorted(slices.Values(leaf.DNSNames)), want) {
		t.Errorf("the certificate is for %v, want %v", leaf.DNSNames, want)
	}
}
