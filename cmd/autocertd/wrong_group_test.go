//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/testbed"
)

// TestOneRefusedAmongAHundred has 100 hostnames in one group, of which the policy of the zone refuses one: the others get
// their certificates, and finding the culprit takes at most 2·log2(100)+2 messages more than there are without it.
func TestOneRefusedAmongAHundred(t *testing.T) {
	t.Parallel()
	allowed := hosts(100)
	var policy []string
	for _, hostname := range allowed {
		policy = append(policy, fmt.Sprintf("grant acme-key name _acme-challenge.%s. TXT", hostname))
	}
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: zone, Policy: policy}}}})
	s.tables = "[log]\nlevel = \"debug\"\nformat = \"json\"\n"

	s.hostnames = allowed
	s.write(t)
	r := s.command(t, "renew", "--force")
	if r.status != exitDone {
		t.Fatalf("renew ends with %d:\n%s", r.status, tail(r.stderr))
	}
	messages, groups := s.bind.UpdateMessages(), groupsSent(t, r)
	t.Logf("nothing refused: %d messages for groups of %v", messages, groups)
	if messages != len(groups) {
		t.Errorf("%d messages for %d groups; each is one", messages, len(groups))
	}

	refused := "refused." + zone
	others := slices.Concat(allowed[:56], allowed[57:])
	s.hostnames = slices.Insert(slices.Clone(others), 56, refused)
	s.write(t)
	r = s.command(t, "renew", "--force")
	if r.status != exitFailed {
		t.Fatalf("renew ends with %d:\n%s", r.status, tail(r.stderr))
	}
	if err := s.pairs(others...); err != nil {
		t.Error(err)
	}
	if failed := strings.Count(r.stderr, `"level":"WARN"`); failed != 1 || !strings.Contains(r.stderr, "grant acme-key name _acme-challenge."+refused+". TXT;") {
		t.Errorf("%d warnings instead of the one with the cure for %s:\n%s", failed, refused, tail(r.stderr))
	}
	messages, groups = s.bind.UpdateMessages()-messages, groupsSent(t, r)
	if i := slices.Index(groups, 1); i >= 0 {
		groups = slices.Delete(groups, i, i+1) // the refused one by itself, removed in case it was added after all
	}
	further, limit := messages-len(groups), int(2*math.Log2(100)+2)
	t.Logf("one refused: %d messages for groups of %v, %d further ones", messages, groups, further)
	if further < 1 || further > limit {
		t.Errorf("%d messages more than without the refused hostname, want at most %d", further, limit)
	}
	s.clean(t, zone)
}

// groupsSent returns how many records each group had that the program says it has sent.
func groupsSent(t *testing.T, r result) (groups []int) {
	t.Helper()
	for line := range strings.Lines(r.stderr) {
		var entry struct {
			Msg     string
			Records int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if entry.Msg == "update sent" {
			groups = append(groups, entry.Records)
		}
	}
	return groups
}
