//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestLocksAreRemoved takes the folder of the locks away from a running daemon: it goes on, keeps a second daemon out again,
// and status knows that it runs.
func TestLocksAreRemoved(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteConfig{})
	s.hostnames = []string{"a." + zone}
	d := s.start(t)
	s.deployed(t, "a."+zone)
	if err := os.RemoveAll(s.path("state", "locks")); err != nil {
		t.Fatal(err)
	}
	if report := s.report(t); report.Daemon == nil {
		t.Error("without the locks, status says that no daemon runs")
	}
	d.tells(t, "the daemon's lock was removed or replaced; taken again")
	s.hostnames = append(s.hostnames, "b."+zone)
	s.write(t)
	s.deployed(t, "b."+zone)
	if r := s.command(t, "run"); r.status != exitFailed || !strings.Contains(r.stderr, "another daemon runs") {
		t.Errorf("a second daemon ends with %d:\n%s", r.status, r.stderr)
	}
	if report := s.report(t); report.Daemon == nil {
		t.Error("with new locks, status says that no daemon runs")
	}

	// A second one that started in between is the one that stays.
	if err := os.RemoveAll(s.path("state", "locks")); err != nil {
		t.Fatal(err)
	}
	second := s.begin(t)
	eventually(t, func() error {
		err := errors.New("both go on")
		for _, p := range []*process{d, second} {
			select {
			case <-p.ended:
				if text := p.says(t); !strings.Contains(text, "another daemon runs") {
					err = fmt.Errorf("one ended without saying why:\n%s", tail(text))
				} else {
					err = nil
				}
			default:
			}
		}
		return err
	})
}
