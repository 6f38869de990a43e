package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/preflight"
	"autocertd/internal/term"
)

// found makes n findings of one kind for n hostnames. Text and cure may hold a place for the hostname.
func found(n int, f preflight.Finding) (list []preflight.Finding) {
	for i := range n {
		one := f
		one.Subject = fmt.Sprintf("h%03d.example.test", i)
		one.Text = strings.ReplaceAll(f.Text, "HOST", one.Subject)
		list = append(list, one)
	}
	return list
}

func TestFold(t *testing.T) {
	refused := preflight.Finding{Check: "update", Status: preflight.Failure, Text: "HOST is refused"}
	down := preflight.Finding{Check: "update", Status: preflight.Failure, Text: "the server is down"}
	fine := preflight.Finding{Check: "update", Status: preflight.OK, Text: "accepted"}
	slow := preflight.Finding{Check: "servers", Status: preflight.Warning, Text: "slow"}
	for _, row := range []struct {
		name     string
		findings []preflight.Finding
		want     []string // subjects
	}{
		{"what is fine is one line", found(500, fine), []string{"500 hostnames"}},
		{"one alone keeps its name", found(1, fine), []string{"h000.example.test"}},
		{"failures come last, beside the summary", slices.Concat(found(1, refused), found(2, slow), found(3, fine)),
			[]string{"3 hostnames", "2 zones", "h000.example.test"}},
		{"the same trouble of all is told once", found(500, down), []string{"500 hostnames"}},
		{"different kinds stay apart", slices.Concat(found(2, fine), []preflight.Finding{{Subject: "/srv/web", Check: "files", Status: preflight.OK, Text: "accepted"}}),
			[]string{"2 hostnames", "/srv/web"}},
	} {
		var got []string
		for _, e := range fold(row.findings) {
			got = append(got, e.subject())
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	alone := fold(found(25, refused))
	if n := len(alone); n != mostAlike || alone[n-1].more != 5 {
		t.Errorf("of 25 refused names %d stand alone, and %d more are told of at the end", n, alone[n-1].more)
	}
}

func TestSummary(t *testing.T) {
	fine := preflight.Finding{Check: "update", Status: preflight.OK}
	doubt := preflight.Finding{Check: "reload", Status: preflight.Warning}
	files := preflight.Finding{Check: "files", Status: preflight.Failure}
	update := preflight.Finding{Check: "update", Status: preflight.Failure}
	for _, row := range []struct {
		findings []preflight.Finding
		failing  string
		certs    int
		want     string
	}{
		{[]preflight.Finding{fine}, "", 1, "ready: issuing would work for 1 certificate"},
		{[]preflight.Finding{fine, doubt}, "", 500, "ready: issuing would work for 500 certificates, with 1 warning"},
		{[]preflight.Finding{fine, doubt, update}, "web", 3, "1 failure, 1 warning: issuing would fail for web"},
		{[]preflight.Finding{update, update}, "a b c d e", 9, "2 failures: issuing would fail for a, b, c and 2 more"},
		{[]preflight.Finding{update}, "a b c d e", 5, "1 failure: issuing would fail for all 5 certificates"},
		{[]preflight.Finding{files}, "web", 3, "1 failure: deploying would fail for web"},
		{[]preflight.Finding{files, update}, "web", 1, "2 failures: issuing would fail for web"},
	} {
		if got, _ := summary(liveReport{Findings: row.findings, Failing: strings.Fields(row.failing)}, row.certs); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}

// TestPage has what stands beside its subject, what stands below since there is no room, and a cure that isn't broken.
func TestPage(t *testing.T) {
	findings := []preflight.Finding{
		{Subject: "www.example.test", Check: "update", Status: preflight.OK, Text: "accepted"},
		{Subject: "/etc/ssl/autocertd/www.example.test", Check: "files", Status: preflight.OK, Text: "can be written"},
		{Subject: "ftp.example.test", Check: "update", Status: preflight.Failure, Text: "127.0.0.1 forbids key to write TXT at ftp.example.test (REFUSED)",
			Why: "without it nothing is issued", Cure: "add to update-policy: grant key name _acme-challenge.ftp.example.test. TXT;\nrndc reconfig"},
	}
	rows := func(width int) string {
		text, _ := liveTable(findings).Format(width)
		return text
	}
	want := `STATUS   SUBJECT           CHECK
ok       www.example.test  update
    accepted
ok       /etc/ssl/autocertd/www.example.test  files
    can be written
failure  ftp.example.test  update
    127.0.0.1 forbids key to write TXT at ftp.example.test
    (REFUSED)
    why   without it nothing is issued
    cure  add to update-policy:
          grant key name _acme-challenge.ftp.example.test. TXT;
          rndc reconfig
`
	if got := rows(60); got != want {
		t.Errorf("60 columns:\n%s\nwant\n%s", got, want)
	}
	want = `STATUS   SUBJECT           CHECK   FOUND
ok       www.example.test  update  accepted
ok       /etc/ssl/autocertd/www.example.test  files
                                   can be written
failure  ftp.example.test  update  127.0.0.1 forbids key to write TXT at
                                   ftp.example.test (REFUSED)
    why   without it nothing is issued
    cure  add to update-policy:
          grant key name _acme-challenge.ftp.example.test. TXT;
          rndc reconfig
`
	if got := rows(80); got != want {
		t.Errorf("80 columns:\n%s\nwant\n%s", got, want)
	}
	want = `STATUS   SUBJECT                              CHECK   FOUND
ok       www.example.test                     update  accepted
ok       /etc/ssl/autocertd/www.example.test  files   can be written
failure  ftp.example.test                     update  127.0.0.1 forbids key to write TXT at ftp.example.test (REFUSED)
    why   without it nothing is issued
    cure  add to update-policy: grant key name _acme-challenge.ftp.example.test. TXT;
          rndc reconfig
`
	if got := rows(term.Unlimited); got != want {
		t.Errorf("in a file:\n%s\nwant\n%s", got, want)
	}
}
