package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"autocertd/internal/config"
	"autocertd/internal/lifecycle"
	"autocertd/internal/term"
	"autocertd/issuer"
)

func renewCommand(opts *options) *cobra.Command {
	var how renewalMode
	command := &cobra.Command{
		Use:   "renew [NAME…]",
		Short: "Get what is missing and renew what is due, now",
		Long: "One pass over all certificates, or over those named: get what is missing, renew what is due, put the files right.\n" +
			"It is safe beside the daemon: each certificate is worked on by one process at a time.\n" +
			"With --dry-run each certificate is ordered at the staging directory of its CAs, due or not, and nothing is kept." + asRoot,
		Example: `  sudo autocertd renew
  sudo autocertd renew www.corp.example.com --force
  sudo autocertd renew --dry-run`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeNames(opts),
		RunE: func(cmd *cobra.Command, names []string) error {
			return renew(cmd.Context(), opts.config, names, how)
		},
	}
	command.Flags().BoolVar(&how.force, "force", false, "renew although nothing is due")
	command.Flags().BoolVar(&how.dry, "dry-run", false, "rehearse at the CA's staging directory, and keep nothing")
	return command
}

// renewalMode is what renew was asked for.
type renewalMode struct{ force, dry bool }

// sparing is how much more garbage a process that soon ends lets lie than one that stays: it saves a tenth of its time.
const sparing = 300

func renew(ctx context.Context, path string, names []string, how renewalMode) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(sparing)
	}
	s, err := openSession(path, "autocertd renew", writes)
	if err != nil {
		return err
	}
	certs, err := selected(s.settings.Config, names)
	if err != nil {
		return err
	}
	if how.dry {
		if err := rehearsing(s.settings, certs); err != nil {
			return err
		}
	}
	show := showPass(len(certs))
	if show.Screen.Terminal {
		printProblems(show.Screen, nil, s.settings.Warnings)
	} else {
		warn(newLogger(s.settings.Log), s.settings.Warnings)
	}
	logger := commandLogger(s.settings.Log, s.command, show.Screen.Terminal)
	p, err := s.program(programConfig{logger: logger, wait: true, progress: show.step})
	if err != nil {
		return err
	}
	var failed int
	if how.dry {
		show.success = "rehearsed, and not kept"
		failed, err = p.pass(ctx, certs, p.manager.Rehearse, show)
	} else {
		work := p.manager.Retry
		if !how.force && len(names) == 0 {
			certs = p.atWork(ctx, certs, show)
		}
		switch {
		case how.force:
			work = p.manager.Renew
		case len(names) > 0:
			work = p.manager.RetryNamed
		}
		failed, err = p.pass(ctx, certs, work, show)
	}
	err = errors.Join(err, p.close())
	show.end(failed)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; the next run, or the daemon, goes on from here")
	case err != nil:
		return err
	case failed > 0:
		return &silentError{exitFailed}
	}
	return nil
}

// atWork returns the certificates for which there may be something to do, the rest being finished.
func (p *program) atWork(ctx context.Context, certs []config.Certificate, show *passProgress) []config.Certificate {
	names := make([]string, len(certs))
	for i, c := range certs {
		names[i] = c.Name
	}
	rest := p.manager.AtRest(ctx, names)
	return slices.DeleteFunc(certs, func(c config.Certificate) bool {
		if rest[c.Name] {
			show.begin(c.Name)
			show.finish(c.Name, nil)
		}
		return rest[c.Name]
	})
}

// tellWaiting tells what a certificate waits for. Whoever runs a command wants to know why it came to nothing, and of waiting
// nothing is logged besides when it begins.
func (p *program) tellWaiting(name string, err error) {
	_, again := errors.AsType[*lifecycle.WaitingError](err)
	if again || lifecycle.Waits(err) {
		p.logger.Warn("certificate waits", "certificate", name, "err", err)
	}
}

// pass works on each certificate once.
func (p *program) pass(ctx context.Context, certs []config.Certificate, work func(context.Context, string) error, show *passProgress) (failed int, err error) {
	if err := p.solver.Sweep(ctx); err != nil {
		return 0, err
	}
	if len(certs) > 1 {
		if _, err := p.manager.Items(ctx); err != nil { // knows the lifetimes from now on
			return 0, p.session.hint(err)
		}
		now := time.Now()
		slices.SortStableFunc(certs, func(x, y config.Certificate) int {
			return cmp.Compare(p.manager.Urgency(x.Name, now), p.manager.Urgency(y.Name, now))
		})
	}
	results := make([]error, len(certs))
	var group errgroup.Group
	group.SetLimit(mostAtATime())
	places := make(chan struct{}, p.current.Load().workers())
	for i, c := range certs {
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), group.Wait())
		case places <- struct{}{}:
		}
		group.Go(func() error {
			yield := sync.OnceFunc(func() { <-places })
			defer yield()
			defer time.AfterFunc(time.Second, yield).Stop() // what hangs keeps its place from nobody, as in the daemon
			show.begin(c.Name)
			results[i] = work(ctx, c.Name)
			p.tellWaiting(c.Name, results[i])
			show.finish(c.Name, results[i])
			return nil
		})
	}
	_ = group.Wait() // results has them all
	for _, err := range results {
		if err != nil {
			failed++
		}
	}
	return failed, ctx.Err()
}

// passProgress shows how a pass over certificates goes.
type passProgress struct {
	*term.Progress
	success string // verdict on a certificate that was issued

	mu         sync.Mutex
	under      map[string]bool // issued, and not finished yet
	done       int
	issued     int
	undeployed int // of those that were issued
}

func showPass(total int) *passProgress {
	return &passProgress{Progress: term.NewProgress(term.On(os.Stderr), total), success: "issued and deployed", under: map[string]bool{}}
}

func (p *passProgress) begin(name string) { p.Step(name, "looking") }

func (p *passProgress) step(name string, s issuer.Step) {
	if s.Name == issuer.Issued {
		p.mu.Lock()
		p.under[name] = true
		p.mu.Unlock()
	}
	p.Step(name, stepWords(s))
}

func (p *passProgress) finish(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	issued, paint := p.under[name], p.Screen.Paint
	delete(p.under, name)
	p.done++
	verdict := paint(term.Dim, "nothing is due")
	switch {
	case errors.Is(err, context.Canceled):
		verdict = paint(term.Yellow, "interrupted")
	case lifecycle.Waits(err):
		verdict = paint(term.Yellow, "waits") + p.Beneath(err)
	case err != nil && issued:
		p.issued++
		p.undeployed++
		verdict = paint(term.Red, "issued, but not deployed") + p.Beneath(err)
	case err != nil:
		verdict = paint(term.Red, "failed") + p.Beneath(err)
	case issued:
		p.issued++
		verdict = paint(term.Green, p.success)
	case p.Total > 20: // too many to say that nothing happened
		verdict = ""
	}
	p.Done(name, verdict)
}

// end says how the pass went.
func (p *passProgress) end(failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%s in %s: %d issued", term.Count(p.Total, "certificate"), p.Since().Round(10*time.Millisecond), p.issued)
	if p.undeployed > 0 {
		text += fmt.Sprintf(", %d of them not deployed", p.undeployed)
	}
	if idle := p.done - p.issued - failed + p.undeployed; idle > 0 {
		text += fmt.Sprintf(", %d not due", idle)
	}
	c := term.Green
	if failed > 0 {
		c = term.Red
	}
	if others := failed - p.undeployed; others > 0 {
		text += fmt.Sprintf(", %d failed", others)
	}
	p.End(p.Screen.Paint(c, text))
}

// stepWords says a step as the screen shows it.
func stepWords(s issuer.Step) string {
	words := map[issuer.StepName]string{
		issuer.Resumed: "resuming the open order", issuer.Ordered: "ordered", issuer.Proven: "proven before", issuer.Published: "published",
		issuer.Validated: "validated", issuer.Issued: "issued", lifecycle.Deploying: "reloading services", lifecycle.Deployed: "deployed",
	}
	if s.Name == issuer.Seen {
		return fmt.Sprintf("seen by %d of %d servers", s.Have, s.Want)
	}
	return cmp.Or(words[s.Name], strings.ToLower(string(s.Name)))
}

// rehearsing turns settings into those of a rehearsal: each CA is its staging directory, which has an account of its own.
// CAs without one are left out, and a certificate for which none is left can't be rehearsed.
func rehearsing(s *settings, certs []config.Certificate) error {
	var missing string
	cas := []config.CA{}
	for _, ca := range s.CAs {
		if ca.Staging != "" {
			ca.Directory = ca.Staging
			cas = append(cas, ca)
		}
	}
	for _, c := range certs {
		if !slices.ContainsFunc(cas, func(ca config.CA) bool { return slices.Contains(c.CAs, ca.Name) }) {
			missing = c.CAs[0]
		}
	}
	if missing != "" {
		return wrong(fmt.Sprintf("CA %s has no staging directory to rehearse at", missing), fmt.Sprintf("add below [ca.%s]:\nstaging = \"https://…\"", missing))
	}
	s.CAs = cas
	return nil
}
