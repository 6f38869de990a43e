//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/internal/state"
	"autocertd/internal/store/files"
)

// suggestion is renewal information (RFC 9773 section 4.2) for a window from now.
func suggestion(start, end time.Duration) string {
	now := time.Now().UTC()
	return fmt.Sprintf(`{"suggestedWindow": {"start": %q, "end": %q}, "explanationURL": "https://ca.test/incident"}`,
		now.Add(start).Format(time.RFC3339), now.Add(end).Format(time.RFC3339))
}

// TestMassRevocation lets the CA ask for one of a hundred certificates at once, and give senseless answers for ten: the
// one is renewed as soon as the CA is asked, and no other ever.
func TestMassRevocation(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = hosts(100)
	d := s.start(t)
	s.deployed(t, s.hostnames...)
	d.stop(t)
	before := s.fingerprints(t)

	chosen, odd := s.hostnames[42], s.hostnames[50:60]
	s.suggests(t, chosen, suggestion(-25*time.Hour, -24*time.Hour))
	for i, info := range []string{
		`never`, `{}`, `null`, `{"suggestedWindow": []}`,
		`{"suggestedWindow": {"start": "soon", "end": "later"}}`,
		`{"suggestedWindow": {"start": "2020-01-01T00:00:00Z"}}`,
		`{"suggestedWindow": {"end": "2020-01-01T00:00:00Z"}}`,
		suggestion(-time.Hour, -time.Hour),
		suggestion(-time.Hour, -2*time.Hour),
		`{"suggestedWindow": {"start": "0000-01-01T00:00:00+23:59", "end": "2020-01-01T00:00:00Z"}}`,
	} {
		s.suggests(t, odd[i], info)
	}

	for pass := range 3 {
		asked := s.ca.Requests()["renewalInfo"]
		for _, name := range s.hostnames {
			s.pollSoon(t, name)
		}
		d = s.startAgain(t)
		eventually(t, func() error {
			if n := s.ca.Requests()["renewalInfo"] - asked; n < len(s.hostnames) {
				return fmt.Errorf("pass %d: the CA was asked %d times for %d certificates", pass, n, len(s.hostnames))
			}
			if n := s.ca.NewOrders(); n < len(s.hostnames)+1 {
				return fmt.Errorf("pass %d: %d orders", pass, n)
			}
			return s.settledDown(t)
		})
		if pass == 0 {
			d.tells(t, "the CA asks for a renewal now", chosen, "https://ca.test/incident")
			d.tells(t, "certificate issued", chosen, "the CA asks for it now: https://ca.test/incident")
		}
		d.stop(t)
	}

	after := s.fingerprints(t)
	for name, now := range after {
		if renewed := now != before[name]; renewed != (name == chosen) {
			t.Errorf("%s: renewed is %t", name, renewed)
		}
	}
	if n := s.ca.NewOrders(); n != len(s.hostnames)+1 {
		t.Errorf("%d orders, want one for each certificate and one more", n)
	}
	for _, c := range s.report(t).Certificates {
		if c.Condition != lifecycle.Valid || slices.Contains(odd, c.Name) && !strings.HasPrefix(c.RenewWhy, "two thirds of the lifetime") {
			t.Errorf("%s is %s and renewed for %q", c.Name, c.Condition, c.RenewWhy)
		}
	}
	s.deployed(t, s.hostnames...)
	s.clean(t, zone)
}

// suggests makes the CA answer renewal information for a certificate.
func (s *site) suggests(t *testing.T, name, info string) {
	t.Helper()
	leaf, err := os.ReadFile(s.path("state", "live", name, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ca.SetRenewalInfo(leaf, info); err != nil {
		t.Fatal(err)
	}
}

// pollSoon makes it look as if a certificate had been issued a day ago and the CA were to be asked about it now. No daemon
// may run.
func (s *site) pollSoon(t *testing.T, name string) {
	t.Helper()
	dir, err := files.Open(s.path("state"), "test")
	if err != nil {
		t.Fatal(err)
	}
	c := s.state(t, name)
	bundle, _, err := state.LoadBundle(t.Context(), dir, name)
	if err != nil {
		t.Fatal(err)
	}
	c.ARI.AskAgain, c.NextLook, bundle.Issued = time.Now(), time.Now(), time.Now().Add(-24*time.Hour)
	if err := errors.Join(state.SaveBundle(t.Context(), dir, bundle), state.Save(t.Context(), dir, c)); err != nil {
		t.Fatal(err)
	}
}

// settledDown reports a certificate that is still to be looked at.
func (s *site) settledDown(t *testing.T) error {
	now := time.Now()
	for _, c := range s.report(t).Certificates {
		if !c.NextLook.After(now) || !c.RenewAt.After(now) {
			return fmt.Errorf("%s is to be looked at at %s and renewed at %s", c.Name, c.NextLook, c.RenewAt)
		}
	}
	return nil
}

// fingerprints are those of the certificates that there are, by name.
func (s *site) fingerprints(t *testing.T) map[string]string {
	t.Helper()
	prints := map[string]string{}
	for _, c := range s.report(t).Certificates {
		if prints[c.Name] = c.Leaf.Fingerprint; c.Leaf.Fingerprint == "" {
			t.Fatalf("%s has no certificate", c.Name)
		}
	}
	return prints
}
