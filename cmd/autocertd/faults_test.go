//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"autocertd/internal/event"
	"autocertd/internal/state"
)

// TestPlanted starts the daemon on a state directory in which something stands in the place of an object, and wants it to
// say so, and to go on once it is gone.
func TestPlanted(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	if os.Geteuid() == 0 { // whom rights don't stop
		s.under = []string{"setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"}
	}
	s.hostnames = hosts(1)
	name := s.hostnames[0]
	d := s.start(t)
	s.deployed(t, name)
	d.stop(t)
	const locked = "nobody may read it"
	fresh := hosts(2)[1]
	for _, tt := range []struct {
		path string // below the state directory
		text string // of the file that is put there, or locked, which takes the rights from what is there; none puts a folder there
		want []event.Kind
	}{
		{"bundles/" + name + ".json", "{", []event.Kind{event.BundleSetAside}},
		{state.OrderKey("test", fresh), locked, []event.Kind{event.OrderUnreadable}},
		{"orders", locked, []event.Kind{event.OrdersNotListed, event.OrdersNotDropped, event.TemporariesStay}},
		{"configuration.json", "", []event.Kind{event.ListsNotSaved}},
		{"daemon.json", "", []event.Kind{event.HealthNotSaved}},
		{"journal", locked, []event.Kind{event.RecordsNotSwept}},
	} {
		t.Run(tt.path+tt.text, func(t *testing.T) {
			planted, aside := s.path("state", tt.path), filepath.Join(t.TempDir(), "aside")
			if err := os.MkdirAll(filepath.Dir(planted), 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.text == locked {
				if strings.HasSuffix(planted, ".json") {
					s.writeFile(t, filepath.Join("state", tt.path), "{}")
				}
				defer func() { _ = os.Chmod(planted, 0o700) }()
			} else if err := os.Rename(planted, aside); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			var err error
			switch tt.text {
			case locked:
				err = os.Chmod(planted, 0)
			case "":
				err = os.MkdirAll(filepath.Join(planted, "occupied"), 0o700)
			default:
				err = os.WriteFile(planted, []byte(tt.text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.hostnames = hosts(1)
			if strings.Contains(tt.path, fresh) {
				s.hostnames = hosts(2)
			}
			d := s.start(t)
			for _, kind := range tt.want {
				d.tells(t, "msg=", string(kind))
			}
			d.stop(t)
			if tt.text == locked {
				return
			}
			if err := os.RemoveAll(planted); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(aside, planted); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		})
	}
	d = s.startAgain(t)
	s.deployed(t, name)
	d.stop(t)
}
