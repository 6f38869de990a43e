//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

// TestRefusedHostname has one hostname among 51 that the key may not update.
func TestRefusedHostname(t *testing.T) {
	t.Parallel()
	refused := "refused." + zone
	allowed := hosts(50)
	var policy []string
	for _, hostname := range allowed {
		policy = append(policy, fmt.Sprintf("grant acme-key name _acme-challenge.%s. TXT", hostname))
	}
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: zone, Policy: policy}}}})
	s.hostnames = slices.Insert(slices.Clone(allowed), 20, refused)
	d := s.start(t)
	s.deployed(t, allowed...)
	status := s.failing(t, refused)
	grant := fmt.Sprintf("grant acme-key name _acme-challenge.%s. TXT;", refused)
	if !strings.Contains(status.Issue.Cure, grant) {
		t.Errorf("status doesn't show the cure %q: %s", grant, status.Issue.Cure)
	}
	if wait := status.Issue.RetryAt.Sub(status.Issue.At); wait < 30*time.Second || wait > 90*time.Second {
		t.Errorf("after the first failure it is tried again in %s", wait)
	}
	for _, c := range s.report(t).Certificates {
		if c.Name != refused && c.Issue.Failures > 0 {
			t.Errorf("%s failed too: %s", c.Name, c.Issue.Error)
		}
	}
	s.clean(t, zone)
	messages := s.bind.UpdateMessages()
	t.Logf("%d update messages; next try in %s: %s", messages, time.Until(status.Issue.RetryAt).Round(time.Second), status.Issue.Error)
	if messages < 0 || messages > 40 {
		t.Errorf("%d update messages", messages)
	}
	d.stop(t)
}

// TestSharedNames has several values at one challenge name at the same time, and one that is somebody else's.
func TestSharedNames(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: zone, Records: []string{
		`_acme-challenge        TXT "kept at the apex"`,
		`_acme-challenge.shared TXT "kept by others"`,
	}}}}})
	s.hostnames = []string{"shared." + zone}
	s.tables = `
[[certificate]]
name = "apex"
hostnames = ["example.test", "*.example.test"]
[[certificate]]
name = "second"
hostnames = ["shared.example.test"]
[[certificate]]
name = "third"
hostnames = ["*.shared.example.test", "shared.example.test", "more.example.test"]
`
	d := s.start(t)
	eventually(t, func() error {
		var errs []error
		for name, hostnames := range map[string][]string{
			"apex":           {zone, "*." + zone},
			"shared." + zone: {"shared." + zone},
			"second":         {"shared." + zone},
			"third":          {"*.shared." + zone, "shared." + zone, "more." + zone},
		} {
			_, err := s.pair(name, hostnames...)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	for _, c := range s.report(t).Certificates {
		if c.Issue.Failures > 0 {
			t.Errorf("%s failed: %s", c.Name, c.Issue.Error)
		}
	}
	s.clean(t, zone, "_acme-challenge.example.test kept at the apex", "_acme-challenge.shared.example.test kept by others")
	d.stop(t)
}
