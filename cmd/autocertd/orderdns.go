package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// The steps that are about DNS.

// The formats of order records.
const (
	formatZone     = "zone"
	formatNSUpdate = "nsupdate"
	formatJSON     = "json"
)

// handRecord is a record as order records --format json prints it.
type handRecord struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	TTL   int    `json:"ttl"`
	Value string `json:"value"`
}

// pending returns the open order, or says that nothing is left to publish.
func (s *orderStep) pending(ctx context.Context) (*issuer.OrderView, error) {
	if s.open == nil {
		return nil, s.noOrder()
	}
	view, err := s.known(s.issuer.ShowOrder(ctx, s.request()))
	if err == nil && view.Validated() {
		said("already done", "the CA has validated the order; no record is needed any more")
		s.sayNext(view, "")
		return nil, nil
	}
	return view, err
}

// records prints the records for whoever edits the zone.
func (s *orderStep) records(ctx context.Context) error {
	view, err := s.pending(ctx)
	if err != nil || view == nil {
		return err
	}
	switch s.flags.format {
	case formatZone:
		for _, r := range view.Records {
			fmt.Println(r.ZoneLine())
		}
	case formatNSUpdate:
		for _, r := range view.Records { // one message each: they may be in several zones
			if server := s.primary(r.Name); server != "" { // else nsupdate asks DNS for it
				fmt.Printf("server %s\n", server)
			}
			fmt.Printf("update add %s. %d IN TXT %q\nsend\n", r.Name, issuer.HandTTL, r.Value)
		}
	case formatJSON:
		list := []handRecord{}
		for _, r := range view.Records {
			list = append(list, handRecord{Name: r.Name, Type: "TXT", TTL: issuer.HandTTL, Value: r.Value})
		}
		err = term.JSON(os.Stdout, list)
	default:
		return &usageError{fmt.Errorf("--format is zone, nsupdate or json, not %q", s.flags.format)}
	}
	said("next", "when the records are in the zone: %s", s.next("check", "--wait"))
	return err
}

// primary is the server for updates of a record, for nsupdate: that of the provider that the configuration has for its zone;
// "" when it has none, or several that may be meant.
func (s *orderStep) primary(record string) string {
	if s.settings == nil {
		return ""
	}
	var found []string
	best := -1 // the length of the zone that fits
	for _, p := range newProviders(s.settings, slog.New(slog.DiscardHandler)) {
		if len(p.Servers) == 0 {
			continue
		}
		fits := -1
		if len(p.Zones) == 0 {
			fits = 0
		}
		for _, zone := range p.Zones {
			if zone = strings.Trim(zone, "."); strings.HasSuffix("."+record, "."+zone) {
				fits = max(fits, len(zone))
			}
		}
		switch {
		case fits < 0 || fits < best:
		case fits > best:
			best, found = fits, p.Servers
		default:
			found = append(slices.Clone(found), p.Servers...)
		}
	}
	if len(found) != 1 {
		return ""
	}
	host, port, err := net.SplitHostPort(found[0])
	if err != nil {
		return ""
	}
	return host + " " + port
}

// How often check --wait asks again.
const (
	askFirst = time.Second
	askLast  = 15 * time.Second
)

// check asks the servers for the records, once or until all have them.
func (s *orderStep) check(ctx context.Context) error {
	view, err := s.pending(ctx)
	if err != nil || view == nil {
		return err
	}
	s.release() // a person may take days
	sights, err := s.look(ctx, view.Records)
	if err == nil && s.flags.wait {
		sights, err = s.waitFor(ctx, view.Records, sights)
	}
	if err != nil {
		return err
	}
	if err := showSights(os.Stdout, sights); err != nil {
		return err
	}
	if !allFound(sights) {
		said("next", "%s", s.next("check", "--wait"))
		return &silentError{exitFailed}
	}
	said("next", "%s", s.next("validate"))
	return nil
}

// waitFor asks until all servers have the records. It says what changes.
func (s *orderStep) waitFor(ctx context.Context, records []issuer.Record, sights []zones.Lookup) ([]zones.Lookup, error) {
	last := ""
	for pause := askFirst; !allFound(sights); pause = min(2*pause, askLast) {
		if now := tallySights(sights); now != last {
			said("waiting", "%s", now)
			last, pause = now, askFirst
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("interrupted; nothing has changed")
		case <-time.After(pause):
		}
		var err error
		if sights, err = s.look(ctx, records); err != nil {
			return nil, err
		}
	}
	return sights, nil
}

func (s *orderStep) look(ctx context.Context, records []issuer.Record) ([]zones.Lookup, error) {
	asker, err := s.asker()
	if err != nil {
		return nil, err
	}
	wanted := make([]zones.Wanted, len(records))
	for i, r := range records {
		wanted[i] = zones.Wanted{Name: r.Name, Value: r.Value}
	}
	sights := asker.LookFor(ctx, wanted)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted; nothing has changed")
	}
	return sights, nil
}

func allFound(sights []zones.Lookup) bool {
	for _, sight := range sights {
		if !sight.Found() {
			return false
		}
	}
	return true
}
