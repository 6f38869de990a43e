package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"autocertd/internal/config"
	"autocertd/internal/dns01"
	"autocertd/internal/store/files"
)

// recordsClean removes what dead processes left. It says what became of each record.
func recordsClean(ctx context.Context, path string, dryRun bool) error {
	s, err := loadAsDaemon(path, looks)
	if err != nil {
		return err
	}
	journal, err := dns01.ListRecords(ctx, files.View(s.StateDir))
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	c := cleaning{screen: newScreen(os.Stdout)}
	var dead []dns01.JournalRecord
	for _, r := range journal {
		switch {
		case r.Damaged != nil:
			c.damaged(r)
		case r.Holder == nil:
			dead = append(dead, r)
		default:
			c.say(plain, "left alone", r, processText(r.Holder)+" removes it")
		}
	}
	switch {
	case len(dead) == 0 && c.left == 0:
		fmt.Fprintln(os.Stderr, "nothing was left behind")
	case dryRun:
		for _, r := range dead {
			c.say(yellow, "would remove", r, "left by a process that died")
			c.left++
		}
	case len(dead) > 0:
		if err := c.remove(ctx, s, dead); err != nil {
			return err
		}
	}
	if c.left > 0 {
		return &silentError{exitFailed}
	}
	return nil
}

// cleaning is a run of records clean.
type cleaning struct {
	screen screen
	left   int // records and entries that are left behind
}

// remove takes over the records of dead processes and removes them, through the same code as the daemon.
func (c *cleaning) remove(ctx context.Context, s *settings, dead []dns01.JournalRecord) error {
	store, err := files.Open(s.StateDir, "autocertd records clean")
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	solver, err := onlySolver(s, store)
	if err != nil {
		return err
	}
	err = solver.Sweep(ctx)
	took := map[dns01.JournalRecord]bool{}
	for _, r := range dead {
		took[r] = solver.Took(r)
	}
	closed := solver.Close(ctx) // waits until all was tried; what it says is said of each record below
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	after, err := dns01.ListRecords(context.WithoutCancel(ctx), store)
	if err != nil {
		return stateDirHint(s.StateDir, err)
	}
	for _, r := range dead {
		at := slices.IndexFunc(after, func(o dns01.JournalRecord) bool { return o.Value == r.Value && spotOf(o) == spotOf(r) })
		still, why := solver.Unremoved(r)
		switch {
		case at < 0 || took[r] && !still:
			c.say(green, "removed", r, "")
		case after[at].Holder != nil:
			c.say(plain, "left alone", r, processText(after[at].Holder)+" has taken it over")
		default:
			c.left++
			c.say(red, "not removed", r, whyNot(s, r, cmp.Or(why, closed)))
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; the daemon, or the next records clean, removes the rest")
	}
	return nil
}

// whyNot says why a record could not be removed.
func whyNot(s *settings, r dns01.JournalRecord, failure error) string {
	switch {
	case !slices.ContainsFunc(s.Providers, func(p *config.Provider) bool { return p.Name == r.Provider }):
		return fmt.Sprintf("its provider isn't in the configuration any more; put [provider.%s] back until it is removed", r.Provider)
	case failure != nil:
		return errorText(failure)
	}
	return "another process looked at it in that moment; try once more"
}

func (c *cleaning) damaged(r dns01.JournalRecord) {
	if r.Holder == nil {
		c.left++
	}
	printWarnings([]string{damagedText(r)})
}

// say writes a line for a record.
func (c *cleaning) say(colour colour, what string, r dns01.JournalRecord, why string) {
	line := fmt.Sprintf("%s %s %q (zone %s, provider %s)", c.screen.paint(colour, what), r.Name, r.Value, r.Zone, r.Provider)
	if why != "" {
		line += ": " + why
	}
	fmt.Fprintln(c.screen.out, line)
}
