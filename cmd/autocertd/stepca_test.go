//go:build linux

package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"autocertd/internal/testbed"
	"autocertd/issuer"
)

// stepSite is a site whose CA is step-ca.
type stepSite struct {
	*site
	ca *testbed.StepCA
}

// newStepSite starts BIND with the secondaries, and step-ca, which asks the last of the servers.
func newStepSite(t *testing.T, lifetime time.Duration, secondaries ...testbed.Secondary) *stepSite {
	t.Helper()
	s := &stepSite{site: &site{dir: t.TempDir(), schedule: "@every 1s", root: x509.NewCertPool()}}
	var err error
	if s.bind, err = testbed.StartBIND(t.Context(), testbed.BINDConfig{Dir: s.dir, Secondaries: secondaries}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.bind.Close() })
	servers := s.bind.Servers()
	s.ca, err = testbed.StartStepCA(t.Context(), testbed.StepCAConfig{Dir: s.dir, DNS: servers[len(servers)-1], Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ca.Close() })
	s.root.AppendCertsFromPEM(s.ca.RootPEM())
	s.writeFile(t, "ca.pem", string(s.ca.RootPEM()))
	s.providers = []string{s.provider("bind")}
	return s
}

// write writes the configuration, with step-ca as the only CA.
func (s *stepSite) write(t *testing.T) {
	t.Helper()
	s.writeFile(t, "config.toml", fmt.Sprintf(
		"hostnames = [%s]\nstate_dir = %q\nschedule = %q\n[ca.step]\ndirectory = %q\naccept_terms = true\nroots = [\"ca.pem\"]\n%s%s",
		quoted(s.hostnames), s.path("state"), s.schedule, s.ca.Directory(), strings.Join(s.providers, ""), s.tables))
}

func (s *stepSite) start(t *testing.T) *process {
	t.Helper()
	s.write(t)
	return s.startAgain(t)
}

// account is the text that is kept of the one account.
func (s *stepSite) account(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(s.path("state", "accounts", "*", "account.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the accounts are %q (%v), want one", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestStepCA has the daemon do its main job with another CA than Pebble, and goes on with that CA after both were ended.
func TestStepCA(t *testing.T) {
	t.Parallel()
	s := newStepSite(t, 24*time.Hour)
	s.hostnames = hosts(2)
	both := []string{"corp." + zone, "*.corp." + zone}
	s.tables = fmt.Sprintf("[[certificate]]\nname = \"wildcard\"\nhostnames = [%s]\n", quoted(both))
	all := func() error {
		if _, err := s.pair("wildcard", both...); err != nil {
			return err
		}
		return s.pairs(s.hostnames...)
	}
	d := s.start(t)
	eventually(t, all)
	s.clean(t, zone)
	account := s.account(t)
	before, err := s.pair(s.hostnames[0])
	if err != nil {
		t.Fatal(err)
	}

	if err := s.ca.Kill(); err != nil {
		t.Fatal(err)
	}
	d.kill(t)
	if err := s.ca.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	d = s.startAgain(t)
	s.renewed(t, "--force")
	after, err := s.pair(s.hostnames[0])
	if err != nil || after.Equal(before) {
		t.Errorf("renew --force left the old certificate (%v)", err)
	}
	if err := all(); err != nil {
		t.Error(err)
	}
	if now := s.account(t); now != account {
		t.Errorf("the account was %s and is %s", account, now)
	}
	if r := s.command(t, "check", "--live"); r.status != 0 {
		t.Errorf("check --live ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	d.stop(t)
	s.clean(t, zone)
}

// TestStepCARenews has certificates that are valid for half a minute, and dated back by one: past two thirds of their
// life from their first moment on. They are renewed in time, and no sooner than after a third of what they had left.
func TestStepCARenews(t *testing.T) {
	t.Parallel()
	const lifetime = 30 * time.Second
	s := newStepSite(t, lifetime)
	s.hostnames = hosts(2)
	d := s.start(t)
	s.deployed(t, s.hostnames...)
	first := map[string]*x509.Certificate{}
	for _, name := range s.hostnames {
		var err error
		if first[name], err = s.pair(name); err != nil {
			t.Fatal(err)
		}
	}
	s.watch(t, 0, 1)
	for _, name := range s.hostnames {
		leaf, err := s.pair(name)
		if err != nil {
			t.Fatal(err)
		}
		if on := leaf.NotBefore.Sub(first[name].NotBefore); on < lifetime/3-time.Second { // which has whole seconds
			t.Errorf("%s was renewed after %s", name, on)
		}
	}
	d.stop(t)
	s.clean(t, zone)
}

// TestStepCARefuses shows what people read when the CA's own certificate is by another root, and when step-ca can't see a
// record. It doesn't give up an order for that, so the next attempt goes on with the same.
func TestStepCARefuses(t *testing.T) {
	t.Parallel()
	s := newStepSite(t, time.Hour, testbed.Secondary{})
	s.hostnames = hosts(1)
	s.write(t)
	other, err := testbed.StartCA(testbed.CAConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	s.writeFile(t, "ca.pem", string(other.TLSRootsPEM()))
	s.fails(t, "CA step", "none of the configured roots has signed", "roots below [ca.step]")

	s.writeFile(t, "ca.pem", string(s.ca.RootPEM()))
	order := s.unseen(t)
	s.renewed(t)
	if err := s.pairs(s.hostnames...); err != nil {
		t.Error(err)
	}
	if s.key(t) != order.Key {
		t.Error("the certificate is from another order")
	}
	s.clean(t, zone)
}

// TestStepCAOldOrder keeps an order until the certificate would be over that comes of it: step-ca fixes that time when it
// takes the order.
func TestStepCAOldOrder(t *testing.T) {
	t.Parallel()
	const lifetime = 15 * time.Second
	s := newStepSite(t, lifetime, testbed.Secondary{})
	s.hostnames = hosts(1)
	order := s.unseen(t)
	time.Sleep(time.Until(order.Created.Add(lifetime)))
	s.renewed(t)
	if err := s.pairs(s.hostnames...); err != nil {
		t.Error(err)
	}
	if s.key(t) == order.Key {
		t.Error("the certificate is from the old order")
	}
	s.clean(t, zone)
}

// unseen has renew fail, since step-ca can't see the records, and returns the order that stays open. Then all is well.
func (s *stepSite) unseen(t *testing.T) (order issuer.OpenOrder) {
	t.Helper()
	name, providers := s.hostnames[0], s.providers
	s.providers = []string{s.provider("bind", nameservers(s.bind.Addr()))} // without the server that step-ca asks
	s.write(t)
	if err := s.bind.Kill(1); err != nil {
		t.Fatal(err)
	}
	s.fails(t, "CA step", name, "validation failed", "DNS query")
	data, err := os.ReadFile(s.path("state", "orders", "step", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &order); err != nil {
		t.Fatal(err)
	}
	if err := s.bind.Restart(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s.providers = providers
	s.write(t)
	return order
}

// fails runs renew, which must fail, say the words and leave no record.
func (s *stepSite) fails(t *testing.T, words ...string) {
	t.Helper()
	r := s.command(t, "renew")
	if r.status != exitFailed {
		t.Errorf("renew ends with %d", r.status)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			t.Errorf("renew doesn't say %q:\n%s", word, r.stderr)
		}
	}
	s.clean(t, zone)
}

// key is the key of the first hostname's certificate.
func (s *stepSite) key(t *testing.T) string {
	t.Helper()
	key, err := os.ReadFile(s.path("state", "live", s.hostnames[0], "privkey.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}
