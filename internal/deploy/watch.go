package deploy

import (
	"context"
	"crypto/x509"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"autocertd/internal/state"
)

// How often files are looked at.
const (
	tick    = time.Second // between looks at what has changed
	round   = 45          // ticks in which all files are looked at that aren't watched
	rounds  = 80          // after which those that are watched are looked at too: an hour
	workers = 16          // certificates that are deployed at a time
	share   = 20          // looks take at most one part in so many of the time
)

// site is what is known of the outputs of one certificate on this host.
type site struct {
	name     string
	seen     uint64    // sum of the files' facts when they were last found right; 0: they are to be looked at
	watched  bool      // each change is noticed, so that a look now and then is enough
	absent   bool      // there was no bundle
	busy     bool      // it is looked at
	failures int       // in a row
	retry    time.Time // no look before: something failed, or was put right again and again
	repairs  int       // how often files were put right in the last hours
	repaired time.Time // the last of those
}

// settle notes the outcome of a pass. Files that somebody else changes again and again are put right less and less often, so
// that two who don't agree don't reload services for ever.
func (s *site) settle(here *state.Deployment, repaired bool, now time.Time) {
	s.absent, s.failures, s.retry = false, here.Trouble.Failures, here.Trouble.RetryAt
	if !repaired || s.failures > 0 {
		return
	}
	const free = 3
	if now.Sub(s.repaired) > 2*time.Hour {
		s.repairs = 0
	}
	if s.repairs++; s.repairs > free {
		s.retry = now.Add(min(time.Minute<<min(s.repairs-free, 6), longestRetry))
	}
	s.repaired = now
}

// Run looks at the outputs of all certificates until ctx ends: at files as soon as they are changed, where the kernel
// notices that, and at all others within a minute. It puts right what is missing or different, and tries again what failed.
func (d *Deployer) Run(ctx context.Context) error {
	w := &watch{
		d:         d,
		owners:    map[int32][]*site{},
		above:     map[string]bool{},
		changed:   map[*site]bool{},
		ancestors: map[int32]string{},
		slots:     make(chan struct{}, workers),
	}
	group, ctx := errgroup.WithContext(ctx)
	if !d.config.Blind {
		w.notifier = newNotifier()
	}
	if n := w.notifier; n != nil {
		group.Go(func() error {
			w.notice(n)
			return nil
		})
		context.AfterFunc(ctx, n.close)
	}
	group.Go(func() error {
		w.loop(ctx)
		return nil
	})
	return group.Wait()
}

// watch is the work of one Run.
type watch struct {
	d        *Deployer
	notifier *notifier // nil where nothing is noticed
	tasks    sync.WaitGroup
	slots    chan struct{} // one for each of the tasks
	at       int           // the next site of the round
	rounds   int

	mu        sync.Mutex
	owners    map[int32][]*site // by the watch of a folder
	ancestors map[int32]string  // folders above those, by their watch
	above     map[string]bool   // the same
	changed   map[*site]bool    // since the last look
	all       bool              // anything may have changed
}

func (w *watch) loop(ctx context.Context) {
	defer w.tasks.Wait()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var free time.Time // until when the last look at changes took its share
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		w.round(ctx, now)
		if !now.Before(free) {
			w.lookAtChanges(ctx, now)
			free = time.Now().Add(share * time.Since(now))
		}
	}
}

// round looks at a part of all sites.
func (w *watch) round(ctx context.Context, now time.Time) {
	w.d.mu.Lock()
	sites := w.d.order
	w.d.mu.Unlock()
	for range (len(sites) + round - 1) / round {
		if w.at >= len(sites) {
			w.at = 0
			w.rounds++
		}
		s := sites[w.at]
		rarely := (w.at+w.rounds)%rounds != 0
		if !w.look(ctx, s, now, rarely) {
			return
		}
		w.at++
	}
}

// lookAtChanges looks at the sites whose files were changed, and at those that are tried again.
func (w *watch) lookAtChanges(ctx context.Context, now time.Time) {
	w.mu.Lock()
	changed, all := w.changed, w.all
	w.changed, w.all = map[*site]bool{}, false
	w.mu.Unlock()
	d := w.d
	d.mu.Lock()
	if all {
		for _, s := range d.order {
			changed[s] = true
		}
	}
	for name := range d.failing {
		if s := d.sites[name]; s != nil && !now.Before(s.retry) {
			changed[s] = true
		}
	}
	d.mu.Unlock()
	for s := range changed {
		if !w.look(ctx, s, now, false) {
			w.note(s)
		}
	}
}

// look compares what can be seen of a site's files with what was seen when they were right, looks closely where that differs,
// and has them deployed where they are wrong. It reports whether that was possible soon. Sites that need no look for long are
// passed over rarely.
func (w *watch) look(ctx context.Context, s *site, now time.Time, rarely bool) bool {
	d := w.d
	d.mu.Lock()
	seen, outputs := s.seen, d.outputs.Of(s.name)
	pass := s.busy || now.Before(s.retry) || rarely && (s.absent || s.watched && seen != 0) || d.sites[s.name] != s
	d.mu.Unlock()
	if pass || seen != 0 && seen == sumFiles(outputs, s.name) {
		return true
	}
	bundle, leaf := w.lookClosely(ctx, s, outputs)
	if bundle == nil {
		return true
	}
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	case <-time.After(tick): // reloads and commands may take long
		return false
	}
	w.setBusy(s, true)
	w.tasks.Go(func() {
		if _, err := d.Deploy(ctx, bundle, leaf); err == nil {
			w.note(s) // look again: the files are others now
		}
		w.setBusy(s, false)
		<-w.slots
	})
	return true
}

func (w *watch) setBusy(s *site, busy bool) {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	s.busy = busy
}

// lookClosely compares the files of a site with its bundle, and returns the bundle where they differ.
func (w *watch) lookClosely(ctx context.Context, s *site, outputs []Output) (*state.Bundle, *x509.Certificate) {
	d := w.d
	// Whatever changes from here on is noticed, or makes another sum.
	watched := w.watch(s, outputs)
	seen := sumFiles(outputs, s.name)
	bundle, leaf, err := state.LoadBundle(ctx, d.config.Store, s.name)
	if err != nil {
		return nil, nil // it is looked at again in the next round
	}
	right := bundle != nil && d.AtRest(ctx, bundle, bundle.Describe(leaf))
	if bundle != nil && !right {
		return bundle, leaf
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.absent = !right; right {
		s.seen, s.watched, s.failures = seen, watched, 0 // another process may have put right what failed here
		delete(d.failing, s.name)
	}
	return nil, nil
}

func (w *watch) note(s *site) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed[s] = true
}

// notice gathers what the kernel reports.
func (w *watch) notice(n *notifier) {
	buf := make([]byte, 64<<10)
	for {
		err := n.next(buf, func(c change) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.owners[c.watch] {
				w.changed[s] = true
			}
			path, above := w.ancestors[c.watch]
			above = above && (c.gone || c.moved)
			w.all = w.all || c.lost || above
			if c.gone || above {
				delete(w.owners, c.watch)
				delete(w.ancestors, c.watch)
				delete(w.above, path)
			}
		})
		if err != nil {
			return // closed
		}
	}
}

// watch has the kernel report changes in the folders of a site's outputs, and moves of the folders above them. It returns
// whether all of them are watched.
func (w *watch) watch(s *site, outputs []Output) bool {
	if w.notifier == nil {
		return false
	}
	for _, o := range outputs {
		dir := o.dir(s.name)
		folders := []string{dir}
		if o.Format != FormatCombined {
			folders = append(folders, filepath.Join(dir, current))
		}
		for _, folder := range folders {
			if !w.watchFolder(s, folder) {
				return false
			}
		}
		for dir != "/" {
			dir = filepath.Dir(dir)
			if !w.watchAbove(dir) {
				return false
			}
		}
	}
	return true
}

func (w *watch) watchFolder(s *site, folder string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, err := w.notifier.add(folder, true)
	if err != nil {
		return false
	}
	for _, owner := range w.owners[id] {
		if owner == s {
			return true
		}
	}
	w.owners[id] = append(w.owners[id], s)
	return true
}

func (w *watch) watchAbove(folder string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.above[folder] {
		return true
	}
	id, err := w.notifier.add(folder, false)
	if err != nil {
		return false
	}
	w.above[folder], w.ancestors[id] = true, folder
	return true
}

// sumFiles returns a sum of what can be seen of the files of a certificate without reading them; never 0.
func sumFiles(outputs []Output, name string) uint64 {
	const prime = 1099511628211 // of FNV-1a
	sum := uint64(14695981039346656037)
	add := func(values ...uint64) {
		for _, v := range values {
			sum = (sum ^ v) * prime
		}
	}
	for _, o := range outputs {
		for _, file := range o.Files(name, false) {
			var st unix.Stat_t
			if err := unix.Stat(file, &st); err != nil {
				add(1)
				continue
			}
			add(st.Ino, uint64(st.Dev), uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Size), uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec))
		}
	}
	return max(sum, 1)
}
