package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/lifecycle"
	"autocertd/internal/preflight"
)

// liveReport is what check --live --json prints. OK is false when something would fail.
type liveReport struct {
	checkReport
	Findings []preflight.Finding `json:"findings"`
	Failing  []string            `json:"failing"` // certificates that would fail
}

// checkLive tries all that issuing needs, short of ordering. A configuration with mistakes is told as without --live.
func checkLive(ctx context.Context, path string, names []string, asJSON bool) error {
	s, err := loadAsDaemon(path, writes)
	if _, mistakes := errors.AsType[config.Problems](err); mistakes {
		return check(path, asJSON)
	}
	if err != nil {
		return err
	}
	certs, err := selected(s.Config, names)
	if err != nil {
		return err
	}
	a, err := newApp(s, appOptions{command: "autocertd check", logger: slog.New(slog.DiscardHandler)}) // the findings tell all
	if err != nil {
		return err
	}
	cfg := a.rehearsal(certs)
	show := newLiveProgress(newScreen(os.Stderr), cfg.Tasks())
	cfg.Progress = show.say
	findings := preflight.Run(ctx, cfg)
	show.say("records", "removing what was published")
	err = a.close()
	show.clear()
	switch {
	case ctx.Err() != nil && err != nil:
		return fmt.Errorf("interrupted; nothing was ordered, but: %w", err)
	case ctx.Err() != nil:
		return errors.New("interrupted; nothing was ordered, and what was published is removed")
	case err != nil:
		findings = append(findings, preflight.LeftBehind(err))
	}
	report := liveReport{checkReport: checkReport{Files: s.Files, Mistakes: config.Problems{}, Warnings: config.Problems{}},
		Findings: findings, Failing: slices.Concat([]string{}, preflight.Affected(cfg.Certificates, findings))}
	report.Warnings = append(report.Warnings, s.Warnings...)
	report.OK = !slices.ContainsFunc(findings, func(f preflight.Finding) bool { return f.Status == preflight.Failure })
	if asJSON {
		err = printJSON(report)
	} else {
		err = printLive(report, len(certs))
	}
	if err == nil && !report.OK {
		return &silentError{exitFailed}
	}
	return err
}

// rehearsal says what is to be tried for certificates.
func (a *app) rehearsal(certs []config.Certificate) preflight.Config {
	cfg := preflight.Config{Solver: a.solver, Deployer: deploy.New(deploy.Config{})}
	if abs, err := filepath.Abs(a.settings.Path); err == nil && abs == defaultConfig {
		cfg.Unit = serviceUnit
	}
	snapshot := lifecycle.NewSnapshot(a.settings.Config, a.issuers, a.settings.window)
	wanted := map[string]bool{}
	for _, c := range certs {
		cfg.Certificates = append(cfg.Certificates, preflight.Certificate{Name: c.Name, Hostnames: c.Hostnames, CAs: c.CAs,
			Profile: c.Profile, Outputs: snapshot.OutputsOf(c.Name)})
		for _, name := range c.CAs {
			wanted[name] = true
		}
	}
	for _, ca := range a.settings.CAs {
		if wanted[ca.Name] {
			cfg.CAs = append(cfg.CAs, preflight.CA{Issuer: a.issuers[ca.Name], EAB: ca.EAB != nil, Profile: ca.Profile,
				Private: len(ca.Roots) > 0})
		}
	}
	return cfg
}

// mostTried is how many things that are being tried have a line each. Of more, each step has one.
const mostTried = 10

// liveProgress shows on a terminal what is being tried.
type liveProgress struct {
	*progress
	tried []*work // oldest first; guarded by mu
}

func newLiveProgress(s screen, total int) *liveProgress {
	return &liveProgress{progress: newProgress(s, total)}
}

// say is told of a step, and of the end by an empty one. Several things may be tried for one subject at once; the last to
// speak is shown.
func (p *liveProgress) say(subject, step string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.tried, func(w *work) bool { return w.name == subject })
	switch {
	case step == "":
		p.done++
		if i >= 0 {
			p.tried = slices.Delete(p.tried, i, i+1)
		}
	case i < 0:
		p.tried = append(p.tried, &work{name: subject, step: step})
	default:
		p.tried[i].step = step
	}
	p.fold()
	p.draw("")
}

// fold sets what is drawn. mu is held.
func (p *liveProgress) fold() {
	p.work = p.tried
	if len(p.tried) > mostTried {
		p.work = nil
		count := map[string]int{}
		for _, w := range p.tried {
			if count[w.step]++; count[w.step] == 1 {
				p.work = append(p.work, &work{step: w.step})
			}
		}
		for _, w := range p.work {
			w.name = fmt.Sprintf("%d %s", count[w.step], plural(count[w.step], "name"))
		}
	}
	p.width = 0
	for _, w := range p.work {
		p.width = max(p.width, min(len(w.name), widestName))
	}
}

// clear takes it from the screen.
func (p *liveProgress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
		p.replace("", nil)
	}
}
