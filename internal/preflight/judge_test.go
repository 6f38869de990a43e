package preflight

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"autocertd/internal/deploy"
	"autocertd/internal/dns01"
	"autocertd/issuer"
)

// says reports whether a finding has the status, and each of the words somewhere.
func says(f Finding, status Status, words ...string) bool {
	all := f.Text + "\n" + f.Why + "\n" + f.Cure
	return f.Status == status && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(all, w) })
}

func TestClock(t *testing.T) {
	for _, row := range []struct {
		ahead  time.Duration
		status Status
		words  string
	}{
		{0, OK, "agrees"},
		{59 * time.Second, OK, "agrees"},
		{-59 * time.Second, OK, "agrees"},
		{60 * time.Second, Warning, "1m0s ahead of"},
		{-299 * time.Second, Warning, "4m59s behind"},
		{300 * time.Second, Failure, "5m0s ahead of"},
		{-48 * time.Hour, Failure, "48h0m0s behind"},
	} {
		f := judgeClock("test", row.ahead)
		if !says(f, row.status, row.words) || row.status != OK && (f.Why == "" || !strings.Contains(f.Cure, "timedatectl set-ntp true")) {
			t.Errorf("%s ahead: %+v, want %s and %q", row.ahead, f, row.status, row.words)
		}
	}
}

func TestProfiles(t *testing.T) {
	offered := map[string]string{"classic": "", "short": ""}
	for _, row := range []struct {
		name     string
		profile  string // of the certificate
		standard string // of the CA
		offered  map[string]string
		status   Status
		subject  string
		words    string
	}{
		{"the certificate's is offered", "short", "", offered, OK, "web", "offers short"},
		{"the certificate's isn't", "tls", "", offered, Failure, "web", "classic, short"},
		{"the CA's is offered", "", "classic", offered, OK, "test", "offers classic"},
		{"the CA's isn't", "", "tls", offered, Failure, "test", "in [ca.test]:\nprofile = \"classic\""},
		{"the CA knows no profiles", "tls", "", nil, Failure, "web", `remove profile = "tls" in the [[certificate]] web`},
		{"the CA chooses", "", "", offered, OK, "test", "it offers classic, short"},
	} {
		certs := []Certificate{{Name: "web", CAs: []string{"test"}, Profile: row.profile}, {Name: "elsewhere", CAs: []string{"x"}, Profile: "none"}}
		list := judgeProfiles("test", row.standard, certs, row.offered)
		if len(list) != 1 || list[0].Subject != row.subject || !says(list[0], row.status, row.words) {
			t.Errorf("%s: %+v, want %s for %s with %q", row.name, list, row.status, row.subject, row.words)
		}
	}
	if list := judgeProfiles("test", "", []Certificate{{CAs: []string{"test"}}}, nil); len(list) > 0 {
		t.Errorf("nobody asks for a profile and none is offered: %+v", list)
	}
}

func TestAccount(t *testing.T) {
	const url = "https://ca.example.com/account/1"
	iss, err := issuer.New(issuer.Config{Name: "test", Directory: "https://ca.example.com/dir"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		eab    bool
		needs  bool
		state  issuer.AccountState
		status Status
		words  string
	}{
		{"none yet", false, false, issuer.AccountState{}, OK, "the first order registers one"},
		{"none yet, and a binding is wanted and there", true, true, issuer.AccountState{}, OK, "the first order registers one"},
		{"none yet, and a binding is wanted", false, true, issuer.AccountState{}, Failure, "in [ca.test]:\neab = { kid ="},
		{"valid, so nobody asks for the binding again", false, true, issuer.AccountState{URL: url, Status: "valid"}, OK, url + " is valid"},
		{"deactivated", false, false, issuer.AccountState{URL: url, Status: "deactivated"}, Failure, "accounts/test-"},
		{"forgotten by the CA", false, false, issuer.AccountState{URL: url, Unknown: true}, Warning, "registers its key again"},
	} {
		f := judgeAccount(CA{Issuer: iss, EAB: row.eab}, issuer.Probe{NeedsEAB: row.needs}, row.state)
		if !says(f, row.status, row.words) {
			t.Errorf("%s: %+v, want %s and %q", row.name, f, row.status, row.words)
		}
	}
}

func TestUnanswered(t *testing.T) {
	f := unanswered("test", "directory", &issuer.Error{CA: "test", Err: errors.New("no way there"), Hint: "look at the firewall"})
	if f.Text != "no way there" || f.Cure != "look at the firewall" || f.Status != Failure {
		t.Errorf("the cure isn't told apart: %+v", f)
	}
	expired := fmt.Errorf("tls: %w", x509.CertificateInvalidError{Reason: x509.Expired})
	if f := unanswered("test", "directory", expired); !strings.Contains(f.Cure, "timedatectl") {
		t.Errorf("a certificate of the CA that isn't valid now: %+v", f)
	}
}

// TestNoRoomForNotes has one finding in the same words for names whose records couldn't be noted, each in a file of its own.
func TestNoRoomForNotes(t *testing.T) {
	var first Finding
	for i, file := range []string{"/var/lib/x/journal/0/.tmp-1", "/var/lib/x/journal/3/.tmp-2"} {
		r := rehearsal{Rehearsal: dns01.Rehearsal{Step: "publish", Err: fmt.Errorf("saving: %w", &fs.PathError{Op: "write", Path: file, Err: syscall.ENOSPC})}}
		f := r.findings(nil)[0]
		if i == 0 {
			first = f
		}
		if f.Said() != first.Said() || !says(f, Failure, "no space left on device") || !strings.Contains(f.Cure, "df -h /var/lib/x/journal;") {
			t.Errorf("%+v after %+v", f, first)
		}
	}
}

func TestUnit(t *testing.T) {
	for _, row := range []struct {
		err    error
		status Status
		words  string
	}{
		{nil, OK, "systemd knows the unit"},
		{fmt.Errorf("%w: none here", deploy.ErrNoSystemd), Warning, "run = [["},
		{errors.New("systemd knows no unit ngnix.service"), Failure, "systemctl list-unit-files '*ngn*'"},
	} {
		if f := judgeUnit("ngnix.service", row.err); !says(f, row.status, row.words) {
			t.Errorf("%v: %+v, want %s and %q", row.err, f, row.status, row.words)
		}
	}
}

func TestAffected(t *testing.T) {
	certs := []Certificate{{Name: "web"}, {Name: "wild"}, {Name: "mail"}}
	for _, row := range []struct{ failing, want string }{
		{"", ""},
		{"web", "web"},
		{"wild web wild", "web wild"},
		{"mail wild web", "web wild mail"},
	} {
		got := Affected(certs, []Finding{
			{Status: Failure, Certificates: strings.Fields(row.failing)},
			{Status: Warning, Certificates: []string{"mail"}},
			{Status: OK, Certificates: []string{"web", "wild"}},
		})
		if strings.Join(got, " ") != row.want {
			t.Errorf("failures for %q are said to hit %q, want %q", row.failing, got, row.want)
		}
	}
}

// TestProofsNameCertificates shows that what is found out about a hostname concerns all certificates with it.
func TestProofsNameCertificates(t *testing.T) {
	cfg := Config{Certificates: []Certificate{
		{Name: "web", Hostnames: []string{"www.a.test", "a.test"}},
		{Name: "wild", Hostnames: []string{"*.b.test", "www.a.test"}},
	}}
	want := map[string]string{"www.a.test": "web wild", "a.test": "web", "*.b.test": "wild"}
	for _, p := range cfg.proofs() {
		if got := strings.Join(p.certificates, " "); got != want[p.subject] {
			t.Errorf("%s: %q, want %q", p.subject, got, want[p.subject])
		}
	}
}

func TestSpare(t *testing.T) {
	both, one := Certificate{CAs: []string{"one", "two"}}, Certificate{CAs: []string{"one"}}
	down := func(names ...string) (list []Finding) {
		for _, n := range names {
			list = append(list, Finding{Subject: n, Status: Failure})
		}
		return list
	}
	for _, row := range []struct {
		name     string
		certs    []Certificate
		findings []Finding
		want     Status
	}{
		{"the other CA stands in", []Certificate{both}, down("one"), Warning},
		{"both are down", []Certificate{both}, down("one", "two"), Failure},
		{"a certificate has no other", []Certificate{both, one}, down("one"), Failure},
		{"nobody needs the one that is down alone", []Certificate{both, one}, down("two"), Warning},
		{"it isn't a CA", []Certificate{both}, down("web"), Failure},
	} {
		if got := spare(row.certs, row.findings)[0]; got.Status != row.want {
			t.Errorf("%s: %+v, want %s", row.name, got, row.want)
		}
	}
}

// TestOutputs has one unit in two outputs, which systemd is asked about once.
func TestOutputs(t *testing.T) {
	dir := t.TempDir()
	asked := &systemctl{}
	out := deploy.Output{Dir: dir + "/{name}", Reload: []string{"nginx.service"}, Run: [][]string{{dir + "/absent"}}}
	cfg := Config{Deployer: deploy.New(deploy.Config{Run: asked}), Progress: func(string, string) {},
		Certificates: []Certificate{{Name: "a", Outputs: []deploy.Output{out}}, {Name: "b", Outputs: []deploy.Output{out}}}}
	var got []string
	for _, f := range cfg.checkOutputs(t.Context()) {
		got = append(got, fmt.Sprintf("%s %s %s", f.Status, f.Check, strings.TrimPrefix(f.Subject, dir+"/")))
		if f.Status == Failure && (!f.Deploys() || f.Cure == "" || f.Why != whyDeploy) {
			t.Errorf("%+v", f)
		}
	}
	want := []string{"ok files a", "failure run absent", "ok files b", "failure reload nginx.service"}
	if !slices.Equal(got, want) || asked.calls != 1 {
		t.Errorf("%d calls, findings %q, want one and %q", asked.calls, got, want)
	}
}

// systemctl is a Runner that knows no unit.
type systemctl struct{ calls int }

func (s *systemctl) Run(context.Context, []string, []string) ([]byte, error) {
	s.calls++
	return []byte("not-found\n"), nil
}
