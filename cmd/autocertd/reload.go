package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/printable"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/term"
	"autocertd/scheduler"
)

// reloader reads the configuration again when it changes.
type reloader struct {
	program   *program
	scheduler *scheduler.Scheduler
	reporter  *reporter
	logger    *slog.Logger
	hangup    chan os.Signal
	ticked    chan struct{} // the files should be looked at
	watch     *fileWatch
	sources   *config.Sources // the files as they were last read, taken over or not; only run uses it
	refused   bool            // they can't be taken for a configuration; likewise

	mu       sync.Mutex // held while settings change or are handed to the scheduler
	unlisted bool       // status can't see what was taken over, see saveTakenOverLocked
}

// begin hands the certificates to the scheduler, and begins to watch the files.
func (r *reloader) begin(ctx context.Context) (err error) {
	if err := r.schedule(ctx); err != nil {
		return err
	}
	r.watch, err = watchFiles(r.sources)
	return err
}

// run reads the configuration again on SIGHUP and when its files have changed.
func (r *reloader) run(ctx context.Context) error {
	defer r.watch.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.hangup:
			r.reload(ctx, "SIGHUP")
		case <-r.watch.Changed:
			r.compare(ctx)
		case <-r.ticked:
			if !r.compare(ctx) {
				continue // and the links lead where they led
			}
		}
		r.watch.Follow(r.sources)
	}
}

// schedule hands the certificates and their due times to the scheduler.
func (r *reloader) schedule(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.scheduleLocked(ctx)
}

func (r *reloader) scheduleLocked(ctx context.Context) error {
	items, err := r.program.manager.Items(ctx)
	if err != nil {
		return r.program.session.hint(err)
	}
	r.saveTakenOverLocked(ctx)
	r.scheduler.SetSchedule(r.program.settings().schedule)
	r.scheduler.SetWorkers(r.program.current.Load().workers())
	r.scheduler.Set(items)
	r.scheduler.Wake()
	return nil
}

// saveTakenOverLocked saves what status shows of the configuration that was taken over. What can't be saved is tried again
// when the disk has room: an old list would say that a file wasn't taken over.
func (r *reloader) saveTakenOverLocked(ctx context.Context) {
	err := saveTakenOver(ctx, r.program.session.store, r.program.settings())
	if err != nil && !r.unlisted {
		r.logger.Error("what was taken over of the configuration can't be saved; status can't show it", "err", err)
	}
	r.unlisted = err != nil
}

// saveAgain saves what couldn't be saved before.
func (r *reloader) saveAgain(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unlisted {
		r.saveTakenOverLocked(ctx)
	}
}

// closeRetired closes what no order of an earlier build uses any more.
func (r *reloader) closeRetired() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.program.closeRetired()
}

// compare has the configuration read again when its files aren't what was last read, and reports whether it was. One that
// was refused is tried in any case, quietly: not every cure is in a file.
func (r *reloader) compare(ctx context.Context) bool {
	changed := r.sources.Changed()
	switch {
	case len(changed) > 0:
		r.reload(ctx, some(changed, "file"))
	case r.refused:
		if _, err := read(r.program.session.path); err != nil {
			return false // it was told
		}
		r.reload(ctx, "it can be read now")
	default:
		return false
	}
	return true
}

// reload reads the configuration again, builds everything from it, and swaps then. A configuration with mistakes changes nothing
// and is logged.
func (r *reloader) reload(ctx context.Context, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	notifySystemd(reloading())
	defer notifySystemd("READY=1")
	s, err := read(r.program.session.path)
	r.sources, r.refused = s.sources, err != nil
	before := r.program.settings()
	if err == nil {
		err = r.program.use(s)
	}
	if err == nil {
		err = r.scheduleLocked(ctx)
	}
	r.reporter.health.configured(err)
	if err != nil {
		for _, problem := range problems(err) {
			r.logger.Error("configuration not taken over; the one before stays", "why", why, "err", problem)
		}
	} else {
		warn(r.logger, s.Warnings)
		r.logger.Info("configuration taken over", append([]any{"why", why, "certificates", len(s.Certificates)}, differences(before, s)...)...)
	}
	r.program.closeRetired()
	r.reporter.report(ctx)
}

// problems takes the mistakes of a configuration apart, a line each.
func problems(err error) []error {
	var list config.Problems
	if !errors.As(err, &list) {
		return []error{err}
	}
	return list.Unwrap()
}

// namedInLog is the number of names that a log line lists before it counts the rest.
const namedInLog = 5

// some names the first things of a list, and counts the others.
func some(list []string, kind string) string {
	named := slices.Clone(list)
	for i := range named[:min(len(named), namedInLog)] {
		named[i] = printable.Short(named[i], 200)
	}
	return term.Listed(named, namedInLog, kind)
}

// part is one kind of things in a configuration: by name, what is said of each.
type part struct {
	kind   string
	things func(s *settings) map[string]any
	equal  func(a, b any) bool
}

// parts are all that can come, go or change by a reload. What is said of the daemon as a whole are things of the kind
// "setting", so that their names stand alone.
func parts() []part {
	return []part{
		{"certificate", func(s *settings) map[string]any {
			return byName(s.Certificates, func(c config.Certificate) string { return c.Name })
		}, reflect.DeepEqual},
		{"CA", func(s *settings) map[string]any {
			return byName(s.CAs, func(ca config.CA) string { return ca.Name })
		}, reflect.DeepEqual},
		{"provider", func(s *settings) map[string]any {
			return byName(s.Providers, func(p *config.Provider) string { return p.Name })
		}, func(a, b any) bool { return a.(*config.Provider).Equal(b.(*config.Provider)) }},
		{"output", func(s *settings) map[string]any {
			return byName(s.outputs.List, func(o deploy.Output) string { return filepath.Join(o.Dir, o.File) })
		}, reflect.DeepEqual},
		{"setting", func(s *settings) map[string]any {
			return map[string]any{"schedule": s.Schedule, "concurrency": s.Concurrency, "window": s.Renewal.Window, "emergency": s.Renewal.Emergency,
				"resolvers": s.Resolvers, "log": s.Log}
		}, reflect.DeepEqual},
	}
}

// byName makes a map of a list. Things of one name are one: outputs may share a folder.
func byName[T any](list []T, name func(T) string) map[string]any {
	things := make(map[string]any, len(list))
	for _, thing := range list {
		key := name(thing)
		if other, ok := things[key]; ok {
			things[key] = []any{other, thing}
		} else {
			things[key] = thing
		}
	}
	return things
}

// differences says what a configuration has that another had not, what it lost, and what is otherwise in it, as the
// attributes of a log line.
func differences(before, after *settings) (attrs []any) {
	texts := map[string][]string{}
	for _, p := range parts() {
		old, young := p.things(before), p.things(after)
		names := map[string][]string{}
		for name, thing := range young {
			other, known := old[name]
			switch {
			case !known:
				names["added"] = append(names["added"], name)
			case !same(p, other, thing):
				names["changed"] = append(names["changed"], name)
			}
		}
		for name := range old {
			if _, kept := young[name]; !kept {
				names["removed"] = append(names["removed"], name)
			}
		}
		for what, list := range names {
			slices.Sort(list)
			text := some(list, p.kind)
			if p.kind != "setting" {
				text = p.kind + " " + text
			}
			texts[what] = append(texts[what], text)
		}
	}
	for _, what := range []string{"added", "removed", "changed"} {
		if len(texts[what]) > 0 {
			attrs = append(attrs, what, strings.Join(texts[what], "; "))
		}
	}
	return attrs
}

// same compares two things of one name.
func same(p part, a, b any) bool {
	x, several := a.([]any)
	y, severalToo := b.([]any)
	if several || severalToo {
		return several && severalToo && slices.EqualFunc(x, y, func(a, b any) bool { return same(p, a, b) })
	}
	return p.equal(a, b)
}

// saveTakenOver lists the certificates of settings that the daemon took over, and the files as they were then.
func saveTakenOver(ctx context.Context, w store.Writer, s *settings) error {
	files, err := json.Marshal(s.sources)
	if err != nil {
		return err
	}
	c := state.Configuration{Files: files, Certificates: make([]state.Configured, len(s.Certificates))}
	for i, cert := range s.Certificates {
		c.Certificates[i] = state.Configured{Name: cert.Name, Hostnames: cert.Hostnames}
	}
	return state.SaveConfiguration(ctx, w, c)
}

// worksFor returns the certificates of the last configuration that a daemon took over.
func worksFor(ctx context.Context, r store.Reader) ([]config.Certificate, error) {
	c, err := state.LoadConfiguration(ctx, r)
	certs := make([]config.Certificate, len(c.Certificates))
	for i, cert := range c.Certificates {
		certs[i] = config.Certificate{Name: cert.Name, Hostnames: cert.Hostnames}
	}
	return certs, err
}

// notTakenOver returns the files that changed since a daemon took the configuration over last.
func notTakenOver(ctx context.Context, r store.Reader) []config.Change {
	c, err := state.LoadConfiguration(ctx, r)
	if err != nil {
		return nil // a daemon of an earlier version wrote none
	}
	changes, err := config.ChangesSince(c.Files)
	if err != nil {
		return nil
	}
	return changes
}
