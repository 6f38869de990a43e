package lifecycle

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/store/files"
)

func TestStatuses(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	leaf := func(left time.Duration) state.Leaf {
		return state.Leaf{NotBefore: now.Add(left - 90*day), NotAfter: now.Add(left)}
	}
	once := state.Trouble{Failures: 1, Error: "a bad day", At: now, RetryAt: now.Add(time.Hour)}
	rows := []struct { // in the order in which they are shown
		state  state.Certificate
		deploy state.Trouble
		want   Condition
	}{
		{state.Certificate{Name: "expired-long-ago", Leaf: leaf(-10 * day), Issue: once}, state.Trouble{}, Expired},
		{state.Certificate{Name: "expired-this-moment", Leaf: leaf(0), RenewAt: now.Add(-30 * day)}, state.Trouble{}, Expired},
		{state.Certificate{Name: "never-issued-and-failing", Issue: once}, state.Trouble{}, Failing},
		{state.Certificate{Name: "renewal-fails", Leaf: leaf(20 * day), RenewAt: now.Add(-10 * day), Issue: once}, once, Failing},
		{state.Certificate{Name: "not-deployed", Leaf: leaf(50 * day), RenewAt: now.Add(20 * day)}, once, NotDeployed},
		{state.Certificate{Name: "not-deployed-and-due", Leaf: leaf(51 * day), RenewAt: now}, once, NotDeployed},
		{state.Certificate{Name: "not-yet-a"}, state.Trouble{}, Missing},
		{state.Certificate{Name: "not-yet-b"}, state.Trouble{}, Missing},
		{state.Certificate{Name: "due-sooner", Leaf: leaf(29 * day), RenewAt: now.Add(-day)}, state.Trouble{}, Due},
		{state.Certificate{Name: "due-this-moment", Leaf: leaf(30 * day), RenewAt: now}, state.Trouble{}, Due},
		{state.Certificate{Name: "valid", Leaf: leaf(60 * day), RenewAt: now.Add(30 * day)}, state.Trouble{}, Valid},
		{state.Certificate{Name: "valid-longer", Leaf: leaf(80 * day), RenewAt: now.Add(50 * day)}, state.Trouble{}, Valid},
	}
	store, err := files.Open(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	var certs []config.Certificate
	var want []string
	for _, row := range rows {
		d := &state.Deployment{Name: row.state.Name, Trouble: row.deploy}
		if err := errors.Join(state.Save(t.Context(), store, &row.state), state.SaveDeployment(t.Context(), store, state.LocalNode, d)); err != nil {
			t.Fatal(err)
		}
		certs = append(certs, config.Certificate{Name: row.state.Name, Hostnames: []string{row.state.Name + ".example.test"}})
		want = append(want, row.state.Name+": "+string(row.want))
	}
	slices.Reverse(certs)
	list, err := Statuses(t.Context(), store, state.LocalNode, certs, now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range list {
		got = append(got, s.Name+": "+string(s.Condition))
		if !slices.Equal(s.Hostnames, []string{s.Name + ".example.test"}) {
			t.Errorf("%s has the hostnames %v", s.Name, s.Hostnames)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStatusHoldsNoKey looks for every line of every key in what is shown and in what is saved beside the keys.
func TestStatusHoldsNoKey(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	p.look()
	w.certificate = `hostnames = ["b.example.test"]`
	p.use()
	w.dns.OnUpdate(refuseAll)
	if err := p.Renew(p.ctx, name); err == nil {
		t.Fatal("it worked")
	}
	b, _ := p.bundle()
	secrets := []string{"PRIVATE KEY", w.dns.Key("acme-key").Secret}
	accounts, err := p.store.List(t.Context(), "accounts")
	if err != nil {
		t.Fatal(err)
	}
	keys := b.Key
	for _, object := range accounts {
		if strings.HasSuffix(object, "key.pem") {
			text, err := p.store.Load(t.Context(), object)
			if err != nil {
				t.Fatal(err)
			}
			keys += string(text)
		}
	}
	for line := range strings.Lines(keys) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			secrets = append(secrets, line)
		}
	}
	if len(secrets) < 8 {
		t.Fatalf("only %d lines of keys were found", len(secrets))
	}
	state, err := os.ReadFile(w.path("state", "states/"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"status": asJSON(t, p.status()), "state": string(state), "log": p.logged.String()} {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds key material", what)
			}
		}
	}
}
