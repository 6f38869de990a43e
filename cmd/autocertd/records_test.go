//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/testbed"
)

const foreign = "kept by others"

// TestRecords follows the records of a daemon that is killed while they are published: a server that hasn't got them keeps
// its orders from going on.
func TestRecords(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{
		Secondaries: []testbed.Secondary{{Notify: true}, {Notify: true}},
		Zones:       []testbed.BINDZone{{Name: zone, Records: []string{fmt.Sprintf("_acme-challenge.h000 TXT %q", foreign)}}},
	}})
	s.hostnames = hosts(3)
	s.write(t)
	if list := s.records(t); len(list) != 1 || list[0].Owner != ownerOther {
		t.Errorf("before the first start: %+v", list)
	}
	if _, err := os.Stat(s.path("state")); err == nil {
		t.Error("looking has made the state directory")
	}
	if err := s.bind.Stop(2); err != nil {
		t.Fatal(err)
	}
	d := s.start(t)
	eventually(t, func() error { return s.published(t, len(s.hostnames)) })

	for _, r := range s.ours(t) {
		if r.Owner != ownerLiving || r.Process.PID != d.cmd.Process.Pid || r.Process.Command != "autocertd run" || !*r.InZone {
			t.Errorf("beside the daemon: %+v %+v", r, r.Process)
		}
	}
	if r := s.command(t, "records", "clean"); r.status != exitDone || strings.Count(r.stdout, "left alone") != 3 || s.published(t, 3) != nil {
		t.Errorf("clean beside the daemon ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	d.kill(t)
	s.left(t)
	s.cleanDry(t)
	s.cleanInVain(t)
	if r := s.command(t, "records", "clean"); r.status != exitDone || strings.Count(r.stdout, "removed _acme-challenge.h00") != 3 {
		t.Errorf("clean ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	s.clean(t, zone, "_acme-challenge.h000.example.test "+foreign)
	if list := s.records(t); len(list) != 1 || list[0].Value != foreign {
		t.Errorf("after clean: %+v", list)
	}
	if r := s.command(t, "records", "clean"); r.status != exitDone || r.stdout != "" {
		t.Errorf("clean with nothing to do ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
}

// left wants the records of the killed daemon to be told of, beside that of others.
func (s *site) left(t *testing.T) {
	t.Helper()
	for _, r := range s.ours(t) {
		if r.Owner != ownerDead || r.Process != nil || !*r.InZone {
			t.Errorf("after the kill: %+v", r)
		}
	}
	text := s.command(t, "records", "list").stdout
	for pattern, n := range map[string]int{"  left by a process that died  ": 3, "  not ours ": 1, "  in the zone\n": 4} {
		if strings.Count(text, pattern) != n {
			t.Errorf("list doesn't say %q %d times:\n%s", pattern, n, text)
		}
	}
}

// cleanDry wants nothing to change by a dry run.
func (s *site) cleanDry(t *testing.T) {
	t.Helper()
	records, journal := s.txt(t), s.journal(t)
	r := s.command(t, "records", "clean", "--dry-run")
	if r.status != exitFailed || strings.Count(r.stdout, "would remove _acme-challenge.h00") != 3 {
		t.Errorf("clean --dry-run ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	if now := s.txt(t); !reflect.DeepEqual(now, records) || !slices.Equal(s.journal(t), journal) {
		t.Errorf("clean --dry-run changed something: %v became %v, %v became %v", records, now, journal, s.journal(t))
	}
}

// cleanInVain wants clean to say why it can't: the server is away, or the provider gone from the configuration.
func (s *site) cleanInVain(t *testing.T) {
	t.Helper()
	if err := s.bind.Kill(0); err != nil {
		t.Fatal(err)
	}
	r := s.command(t, "records", "clean")
	if r.status != exitFailed || strings.Count(r.stdout, "not removed _acme-challenge.h00") != 3 || !strings.Contains(r.stdout, s.bind.Addr()) {
		t.Errorf("clean without a server ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	for _, r := range s.ours(t) {
		if r.Owner != ownerDead || r.InZone != nil || !strings.Contains(r.Error, s.bind.Addr()+" doesn't listen") {
			t.Errorf("without a server: %+v", r)
		}
	}
	if err := s.bind.Restart(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	s.writeFile(t, "config.toml", strings.ReplaceAll(s.text(), "[provider.bind]", "[provider.new]"))
	r = s.command(t, "records", "clean")
	if r.status != exitFailed || strings.Count(r.stdout, "put [provider.bind] back") != 3 {
		t.Errorf("clean without the provider ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	s.write(t)
	if err := s.published(t, 3); err != nil {
		t.Error(err)
	}
}

// records is what records list --json says.
func (s *site) records(t *testing.T) []listedRecord {
	t.Helper()
	r := s.command(t, "records", "list", "--json")
	var report recordsReport
	if err := json.Unmarshal([]byte(r.stdout), &report); r.status != 0 || err != nil {
		t.Fatalf("records list --json ends with %d (%v):\n%s%s", r.status, err, r.stdout, r.stderr)
	}
	return report.Records
}

// ours are the records of each hostname that aren't of others.
func (s *site) ours(t *testing.T) []listedRecord {
	t.Helper()
	list := slices.DeleteFunc(s.records(t), func(r listedRecord) bool { return r.Owner == ownerOther })
	var names []string
	for _, r := range list {
		names = append(names, strings.TrimPrefix(r.Name, "_acme-challenge."))
	}
	if !slices.Equal(names, s.hostnames) {
		t.Fatalf("records list tells of %q", names)
	}
	return list
}

func (s *site) txt(t *testing.T) map[string][]string {
	t.Helper()
	values, err := s.bind.TXT(t.Context(), zone)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// published reports whether the zone has other than n records that aren't foreign.
func (s *site) published(t *testing.T, n int) error {
	all := slices.Concat(slices.Collect(maps.Values(s.txt(t)))...)
	have := len(slices.DeleteFunc(all, func(value string) bool { return value == foreign }))
	if have != n {
		return fmt.Errorf("%d of %d records", have, n)
	}
	return nil
}

// journal are the files of the journal.
func (s *site) journal(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(s.path("state", "journal", "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no journal (%v)", err)
	}
	return files
}
