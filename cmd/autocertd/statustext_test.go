package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
	"autocertd/internal/state"
	"autocertd/internal/store/files"
	"autocertd/internal/term"
	"autocertd/issuer"
)

func TestHostnamesColumn(t *testing.T) {
	three := []string{"corp.example.com", "*.corp.example.com", "www.corp.example.com"}
	for _, row := range []struct {
		name      string
		hostnames []string
		room      int
		want      string
	}{
		{"www.corp.example.com", []string{"www.corp.example.com"}, 9, "="},
		{"web", []string{"www.corp.example.com"}, 40, "www.corp.example.com"},
		{"web", three, 60, "corp.example.com,*.corp.example.com,www.corp.example.com"},
		{"web", three, 40, "corp.example.com,*.corp.example.com +1"},
		{"web", three, 20, "corp.example.com +2"},
		{"web", three, 9, "corp.exa…"},
		{"web", nil, 9, ""},
	} {
		if got := hostnames(lifecycle.Status{Name: row.name, Hostnames: row.hostnames}, row.room); got != row.want {
			t.Errorf("%d hostnames in %d columns: %q, want %q", len(row.hostnames), row.room, got, row.want)
		}
	}
}

func TestDaemonNotes(t *testing.T) {
	certificates := []certificateStatus{{Status: lifecycle.Status{Name: "www.corp.example.com"}}}
	refused := &state.Daemon{PID: 1, ConfigError: "CA test: no such thing", ConfigErrorAt: time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)}
	mistakes := config.Problems{{File: "config.toml", Line: 3, Message: "is wrong"}}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	gone := []state.Kept{{Name: "a", NotAfter: now.Add(48 * time.Hour)}, {Name: "b", NotAfter: now.Add(-time.Hour)}, {Name: "c"}}
	for _, row := range []struct {
		what   string
		report statusReport
		want   string
	}{
		{"some are left", statusReport{Daemon: &state.Daemon{PID: 1}, Certificates: certificates, Unconfigured: gone},
			"no longer configured, but on disk: a (valid for 2d), b (expired), c; to remove: autocertd forget a b c\n"},
		{"all is well", statusReport{Daemon: &state.Daemon{PID: 1}, Certificates: certificates}, ""},
		{"nobody looks after it", statusReport{Certificates: certificates, stateDir: "/srv/certs"},
			"no daemon runs on /srv/certs; to start it: systemctl start autocertd\n"},
		{"nothing to do", statusReport{Daemon: &state.Daemon{PID: 1}},
			"no certificate is configured; to get one: hostnames = [\"host.corp.example.com\"]\n"},
		{"the files are right but were refused", statusReport{Daemon: refused, Certificates: certificates},
			"the daemon runs with an earlier configuration; since 2026-11-24 12:00:00 it refuses the files:\nCA test: no such thing\n"},
		{"the files are wrong, which says more", statusReport{Daemon: refused, Certificates: certificates, Mistakes: mistakes},
			"mistake: config.toml:3: is wrong\nthe configuration has mistakes; the certificates are those that the daemon last took over\n"},
	} {
		if got := printed(t, func(out term.Screen) { printDaemon(out, &row.report, now) }); got != row.want {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
	}
}

// printed returns what is printed where there is no terminal.
func printed(t *testing.T, print func(out term.Screen)) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	print(term.On(file))
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sample is a set of certificates in which each kind of text is there.
func sample(now time.Time) []certificateStatus {
	far := now.Add(89*24*time.Hour + time.Minute)
	refused := `publishing _acme-challenge.web.corp.example.com: ns1.corp.example.com:53 forbids TSIG key "autocertd" to write TXT at _acme-challenge.web.corp.example.com (REFUSED); add to update-policy of zone corp.example.com and run rndc reconfig: grant autocertd name _acme-challenge.web.corp.example.com. TXT;`
	return []certificateStatus{
		{Status: lifecycle.Status{Name: "web.corp.example.com", Hostnames: []string{"web.corp.example.com"}, Condition: lifecycle.Failing,
			Issue: state.Trouble{Failures: 1, Error: refused, At: now, RetryAt: now.Add(9*time.Minute + 18*time.Second)}}},
		{Status: lifecycle.Status{Name: "new.corp.example.com", Hostnames: []string{"new.corp.example.com"}, Condition: lifecycle.Missing},
			Now: &state.Doing{Step: "1 of 2 servers have the records", Since: now.Add(-80 * time.Second)}},
		{Status: lifecycle.Status{Name: "lb.corp.example.com", Hostnames: []string{"lb.corp.example.com"}, Condition: lifecycle.Valid,
			NotAfter: far, RenewAt: now.Add(59 * 24 * time.Hour), RenewWhy: "two thirds of the lifetime"}},
	}
}

// lay is what a table looks like, for a comparison.
func lay(table term.Table, width int) string {
	text, _ := table.Format(width)
	return "\n" + text
}

func TestStatusTable(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	plain := sample(now)
	named := sample(now)
	named[2].Name = "lb"
	long := sample(now)[2:]
	long[0].Name = strings.Repeat("long-", 14) + "name"
	var many []certificateStatus
	for range 12 {
		many = append(many, plain[0])
	}
	for _, row := range []struct {
		what  string
		list  []certificateStatus
		width int
		cut   bool
		want  string // "" when only the width counts
	}{
		{"80 columns: texts below, the cure whole", plain, 80, false, `
NAME                  EXPIRES IN  RENEWS IN  STATE
web.corp.example.com  -           9m 18s     failing
  publishing _acme-challenge.web.corp.example.com: ns1.corp.example.com:53
  forbids TSIG key "autocertd" to write TXT at
  _acme-challenge.web.corp.example.com (REFUSED); add to update-policy of zone
  corp.example.com and run rndc reconfig: grant autocertd name
  _acme-challenge.web.corp.example.com. TXT;
new.corp.example.com  -           -          in progress
  1 of 2 servers have the records, since 1m 20s
lb.corp.example.com   89d         59d        valid
`},
		{"120 columns: the text beside", plain[1:], 120, false, `
NAME                  EXPIRES IN  RENEWS IN  STATE        DETAILS
new.corp.example.com  -           -          in progress  1 of 2 servers have the records, since 1m 20s
lb.corp.example.com   89d         59d        valid
`},
		{"a column of hostnames where one differs", named[1:], 120, false, `
NAME                  HOSTNAMES            EXPIRES IN  RENEWS IN  STATE        DETAILS
new.corp.example.com  =                    -           -          in progress  1 of 2 servers have the records, since 1m
                                                                               20s
lb                    lb.corp.example.com  89d         59d        valid
`},
		{"a long name", long, 80, true, `
NAME                                     HOSTNAMES  EXPIRES IN  RENEWS IN  STATE
long-long-long-long-long-long-long-lon…  lb.corp.…  89d         59d        valid
`},
		{"many failures at 80", many, 80, true, ""},
		{"at 120", plain, 120, false, ""},
		{"at 200", plain, 200, false, ""},
		{"at 40", plain, 40, true, ""},
	} {
		text, cut := statusTable(row.list, now).Format(row.width)
		got := "\n" + text
		if row.want != "" && got != row.want {
			t.Errorf("%s:%s", row.what, got)
		}
		if row.want == "" && cut != row.cut {
			t.Errorf("%s: cut is %t:%s", row.what, cut, got)
		}
		noWider(t, row.what, got, max(row.width, 56)) // below 56 columns the moments alone take more
	}
	if got := lay(statusTable(plain, now), term.Unlimited); strings.Count(got, "\n") != 5 || !strings.Contains(got, plain[0].Issue.Error) {
		t.Errorf("in a pipe each is one line, with all of its error:%s", got)
	}
}

func TestPlanTable(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	held := "the CA allows 3 certificates for example.com in 7d"
	r := planReport{Now: now, Certificates: []lifecycle.Planned{
		{Name: "p1.corp.example.com", CA: "private", Why: "there is none yet", Due: now, At: now.Add(55 * time.Hour), Held: held},
		{Name: "new.corp.example.com", CA: "private", Why: "two thirds of the lifetime", Due: now.Add(59 * 24 * time.Hour), At: now.Add(59 * 24 * time.Hour)},
	}}
	want := `
NAME                  DUE IN  ORDERED IN  WHY
p1.corp.example.com   now     2d 7h       held: the CA allows 3 certificates for
                                          example.com in 7d
new.corp.example.com  59d     59d         two thirds of the lifetime
`
	if got := lay(r.table(), 80); got != want {
		t.Errorf("80 columns:%s", got)
	}
	r.Certificates[1].CA = "le"
	r.Certificates[1].Name = strings.Repeat("long-", 14) + "name"
	for _, width := range []int{60, 80, 100, 120, 200} {
		noWider(t, "plan", lay(r.table(), width), width)
	}
	if got := lay(r.table(), term.Unlimited); !strings.Contains(got, "held: "+held+"\n") || !strings.Contains(got, "  le ") {
		t.Errorf("in a pipe:%s", got)
	}
}

// noWider fails for lines that a terminal of that width would break.
func noWider(t *testing.T, what, text string, width int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
			t.Errorf("%s: %d of %d columns: %s", what, n, width, line)
		}
	}
}

func TestStatusDetails(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	c := sample(now)[0]
	c.CAs, c.Providers, c.KeyType = []string{"le", "private"}, []string{"bind"}, "ecdsa-p256"
	c.Outputs = []outputStatus{{Path: "/etc/ssl/autocertd/web", Files: []string{"/etc/ssl/autocertd/web/cert.pem", "/etc/ssl/autocertd/web/privkey.pem"},
		Mode: "0640", Group: "ssl-cert", Reload: []string{"nginx.service"}, Run: []string{"/usr/local/bin/push"}}}
	for _, width := range []int{80, 120, 200} {
		noWider(t, "details", lay(c.details(now), width), width)
	}
	got := lay(c.details(now), 80)
	for _, want := range []string{"\nCA          le, then private\n", "\nprovider    bind\n", "\nkey type    ecdsa-p256\n",
		"\nfiles       /etc/ssl/autocertd/web/: cert.pem, privkey.pem; key: mode 0640,\n            group ssl-cert\n",
		"\nreloads     nginx.service\n", "\nruns        /usr/local/bin/push\n",
		"\nlast error  publishing _acme-challenge.web.corp.example.com:\n            ns1.corp.example.com:53 forbids "} {
		if !strings.Contains(got, want) {
			t.Errorf("nothing like %q:%s", want, got)
		}
	}
}

func TestStatusExitCode(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	running := &state.Daemon{PID: 1}
	with := func(conditions ...lifecycle.Condition) (list []certificateStatus) {
		for _, c := range conditions {
			list = append(list, certificateStatus{Status: lifecycle.Status{Condition: c}})
		}
		return list
	}
	held := func(notAfter time.Time) []certificateStatus {
		return []certificateStatus{{Status: lifecycle.Status{Condition: lifecycle.OnHold, NotAfter: notAfter, Held: state.Held{Until: now}}}}
	}
	for _, row := range []struct {
		what   string
		report statusReport
		want   int
	}{
		{"nothing is configured", statusReport{Daemon: running}, 0},
		{"what happens by itself", statusReport{Daemon: running, Certificates: with(lifecycle.Valid, lifecycle.Due, lifecycle.Missing, lifecycle.OnHold, lifecycle.AtWork)}, 0},
		{"failing", statusReport{Daemon: running, Certificates: with(lifecycle.Valid, lifecycle.Failing)}, 1},
		{"not deployed", statusReport{Daemon: running, Certificates: with(lifecycle.NotDeployed)}, 1},
		{"a record is to be added", statusReport{Daemon: running, Certificates: with(lifecycle.ByHand)}, 1},
		{"unreadable", statusReport{Daemon: running, Certificates: with(lifecycle.Unreadable)}, 1},
		{"a condition of later days", statusReport{Daemon: running, Certificates: with("something else")}, 1},
		{"held, and the old one lives longer", statusReport{Daemon: running, Certificates: held(now.Add(time.Hour))}, 0},
		{"held for too long", statusReport{Daemon: running, Certificates: held(now.Add(-time.Hour))}, 1},
		{"expired beside others", statusReport{Daemon: running, Certificates: with(lifecycle.Failing, lifecycle.Expired, lifecycle.Valid)}, 2},
		{"expired, and no daemon", statusReport{Certificates: with(lifecycle.Expired)}, 2},
		{"no daemon", statusReport{Certificates: with(lifecycle.Valid)}, 1},
		{"mistakes in the files", statusReport{Daemon: running, Mistakes: config.Problems{{}}}, 1},
		{"files refused", statusReport{Daemon: &state.Daemon{PID: 1, ConfigError: "no"}}, 1},
	} {
		if got := row.report.exitCode(); got != row.want {
			t.Errorf("%s: %d, want %d", row.what, got, row.want)
		}
	}
}

func TestServedBy(t *testing.T) {
	lone := []*config.Provider{{Name: "bind"}}
	two := []*config.Provider{{Name: "bind", Zones: []string{"corp.example.com"}}, {Name: "cloud", Zones: []string{"example.com", "dmz.corp.example.com"}}}
	for _, row := range []struct {
		providers []*config.Provider
		hostnames []string
		want      string
	}{
		{lone, []string{"www.corp.example.com"}, "bind"},
		{two, []string{"www.corp.example.com", "corp.example.com"}, "bind"},
		{two, []string{"www.dmz.corp.example.com", "*.corp.example.com"}, "cloud bind"},
		{two, []string{"www.xcorp.example.com"}, "cloud"},
		{two, []string{"www.example.net"}, ""},
	} {
		if got := strings.Join(servedBy(row.providers, row.hostnames), " "); got != row.want {
			t.Errorf("%v: %q, want %q", row.hostnames, got, row.want)
		}
	}
}

// TestDoings shows what the daemon says of a certificate in work, and since when.
func TestDoings(t *testing.T) {
	store := files.View(t.TempDir())
	told := 0
	d := newDoings(func() { told++ })
	for _, step := range []issuer.Step{{Name: lifecycle.Ordering}, {Name: issuer.Ordered}, {Name: issuer.Published}} {
		d.step("www", step)
	}
	long := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	since := d.now["www"]
	since.Since = long
	d.now["www"] = since
	d.step("www", issuer.Step{Name: issuer.Seen, Have: 1, Want: 2})
	d.step("mail", issuer.Step{Name: lifecycle.Ordering})
	if err := d.save(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	now := state.LoadDoings(t.Context(), store)
	if got := now["www"]; got.Step != "1 of 2 servers have the records" || !got.Since.Equal(long) {
		t.Errorf("waiting for servers: %+v", got)
	}
	d.step("www", issuer.Step{Name: issuer.Seen, Have: 2, Want: 2})
	if got := d.now["www"]; got.Step != "the CA is validating" || got.Since.Equal(long) {
		t.Errorf("all servers have the records: %+v", got)
	}
	d.end("www")
	if err := d.save(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	if now := state.LoadDoings(t.Context(), store); len(now) != 1 || now["mail"].Step == "" || told != 6 {
		t.Errorf("after the end: %v, told %d times", now, told)
	}
}
