package files

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// lookAgain is how often a folder is looked at that can't be watched.
const lookAgain = 3 * time.Second

// watch is one watch of a folder and of those below it. It goes by the events of inotify, and compares the whole folder
// with what was seen of it where events were lost, or there are none.
type watch struct {
	store  *Store
	folder string
	notify *fsnotify.Watcher // nil where there is none
	blind  bool              // events don't tell of all changes, so that the folder is looked at every lookAgain
	seen   map[string]stamp  // by key; zero for what was there before the watch, as long as no event names it

	changed []string // not yet sent
	pending map[string]bool
}

// stamp changes whenever a file is replaced.
type stamp struct {
	inode, size, changed int64
}

// Watch implements store.Watcher.
func (f *Store) Watch(ctx context.Context, prefix string) (<-chan []string, error) {
	folder, err := f.path(prefix)
	if err != nil {
		return nil, err
	}
	w := &watch{store: f, folder: folder, seen: map[string]stamp{}, pending: map[string]bool{}}
	if !f.views {
		_ = f.makeFolder(folder) // to be watched; until it is there, it is looked for
	}
	if !f.polls {
		w.notify, _ = fsnotify.NewWatcher()
	}
	w.look(false) // names are enough while events tell of changes, and cost little where there are many
	if w.blind {
		w.look(true)
	}
	w.changed = nil // what was there before
	clear(w.pending)
	keys := make(chan []string)
	go w.run(ctx, keys) // ends with ctx
	return keys, nil
}

func (w *watch) run(ctx context.Context, keys chan<- []string) {
	defer close(keys)
	var events <-chan fsnotify.Event
	var lost <-chan error
	if w.notify != nil {
		defer w.notify.Close()
		events, lost = w.notify.Events, w.notify.Errors
	}
	again := time.NewTicker(w.store.lookAgain)
	defer again.Stop()
	for {
		var send chan<- []string
		if len(w.changed) > 0 {
			send = keys
		}
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			w.note(event)
		case <-lost: // the kernel had no room for more events
			w.look(true)
		case <-again.C:
			if w.blind {
				w.look(true)
			}
		case send <- w.changed:
			w.changed = nil
			clear(w.pending)
		}
	}
}

// note takes one event.
func (w *watch) note(event fsnotify.Event) {
	if event.Op == fsnotify.Chmod || strings.HasPrefix(filepath.Base(event.Name), ".") {
		return
	}
	now, is := stampOf(event.Name)
	key := w.key(event.Name)
	_, was := w.seen[key]
	switch {
	case is:
		w.seen[key] = now
	case was:
		delete(w.seen, key)
	default: // a folder that came or went, or a file that came and went
		w.look(true)
	}
	if is || was || event.Has(fsnotify.Remove) && event.Name != w.folder {
		w.change(key)
	}
}

func (w *watch) change(key string) {
	if !w.pending[key] {
		w.pending[key] = true
		w.changed = append(w.changed, key)
	}
}

// look compares everything with what was seen before: the names, and with closely the stamps too. Folders that are new are
// watched first, so that no change of a file in them is missed.
func (w *watch) look(closely bool) {
	there := map[string]bool{}
	w.blind = w.notify == nil
	_ = filepath.WalkDir(w.folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil: // gone, or not readable now
			w.blind = true
		case entry.IsDir():
			if w.notify != nil && w.notify.Add(path) != nil {
				w.blind = true
			}
		case strings.HasPrefix(entry.Name(), "."):
		default:
			key := w.key(path)
			before, known := w.seen[key]
			now, is := before, entry.Type().IsRegular()
			if closely {
				now, is = stampOf(path)
			}
			if is {
				if there[key] = true; !known || now != before {
					w.seen[key] = now
					w.change(key)
				}
			}
		}
		return nil
	})
	for key := range w.seen {
		if !there[key] {
			delete(w.seen, key)
			w.change(key)
		}
	}
}

func (w *watch) key(path string) string {
	return filepath.ToSlash(strings.TrimPrefix(path, w.store.root+string(filepath.Separator)))
}

// stampOf returns the stamp of a file; false when there is no regular one.
func stampOf(path string) (stamp, bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, false
	}
	return stamp{int64(st.Ino), st.Size, st.Mtim.Nano()}, true
}
