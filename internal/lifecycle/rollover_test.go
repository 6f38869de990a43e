package lifecycle

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"autocertd/issuer"
)

// keyFiles are the keys of the account on disk: the one that counts, and that of a rollover which isn't finished.
func (w *world) keyFiles() (key, next string) {
	w.Helper()
	entries, err := os.ReadDir(w.path("state", "accounts"))
	if err != nil || len(entries) != 1 {
		w.Fatalf("accounts %v, %v", entries, err)
	}
	read := func(file string) string {
		text, err := os.ReadFile(w.path("state", "accounts", entries[0].Name(), file))
		if err != nil && !os.IsNotExist(err) {
			w.Fatal(err)
		}
		return string(text)
	}
	return read("key.pem"), read("key-next.pem")
}

// rollover is one row of what a rollover can die at.
type rollover struct {
	what       string
	op, object string // the call of the storage that fails, or
	path       string // the request that is lost
	effect     bool   // it took effect
}

// rollovers are the steps of a rollover in their order, each with and without effect.
func rollovers() (rows []rollover) {
	for _, effect := range []bool{false, true} {
		rows = append(rows,
			rollover{"the new key is saved", "Save", "key-next.pem", "", effect},
			rollover{"the CA is asked whether it has the new key", "", "", "/sign-me-up", effect},
			rollover{"the CA is told", "", "", "/rollover-account-key", effect},
			rollover{"the new key takes the old one's place", "Save", "key.pem", "", effect},
			rollover{"the second copy goes", "Delete", "key-next.pem", "", effect},
			rollover{"the CA describes the account", "", "", "/my-account/", effect},
		)
	}
	return rows
}

// TestRolloverKilled kills a rollover at each of its steps. Then a process that was running all the time renews, and one
// that starts anew does: with the account that there was, and with one key, which the CA accepts.
func TestRolloverKilled(t *testing.T) {
	for _, row := range rollovers() {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, effect %t, the daemon was running %t", row.what, row.effect, running), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				daemon := w.start()
				daemon.look()
				before, _ := daemon.bundle()
				old, _ := w.keyFiles()

				lost := &losing{Path: row.path, Reply: row.effect, Dies: true}
				killed := w.startWith(Config{}, lost)
				if row.op != "" {
					killed.store.breaks(fault{Op: row.op, Prefix: issuer.AccountKey("one", w.cas[0].Directory()) + "/" + row.object, Effect: row.effect, Dies: true})
				}
				_, err := killed.snapshot.Load().Issuers["one"].Rollover(killed.ctx)
				if err == nil || !(lost.Path != "" && lost.hit() || row.op != "" && killed.store.hit()) {
					t.Fatalf("the fault didn't happen (%v); writes were %v", err, killed.store.written())
				}
				w.dns.OnUpdate(nil)

				if !running {
					daemon = w.start()
				}
				if err := daemon.Renew(daemon.ctx, name); err != nil {
					t.Fatalf("renewing: %v\n%s", err, daemon.logged)
				}
				after, _ := daemon.bundle()
				if after.Account != before.Account || after.Leaf == before.Leaf {
					t.Errorf("renewed by account %s, want %s", after.Account, before.Account)
				}
				key, next := w.keyFiles()
				if next != "" {
					t.Error("the rollover isn't finished")
				}
				// Only a new key that was never saved leaves the old one.
				if unsaved := row.object == "key-next.pem" && row.op == "Save" && !row.effect; (key == old) != unsaved {
					t.Errorf("the old key counts: %t, want %t", key == old, unsaved)
				}
				state, err := daemon.snapshot.Load().Issuers["one"].Account(t.Context())
				if err != nil || state.URL != before.Account || state.Status != "valid" {
					t.Errorf("the account is %+v, %v", state, err)
				}
				if strings.Contains(daemon.logged.String(), "registering") {
					t.Errorf("another account was registered\n%s", daemon.logged)
				}
			})
		}
	}
}
