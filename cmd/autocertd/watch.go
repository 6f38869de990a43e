package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"autocertd/internal/config"
)

// quietFor is the time without changes after which files are read: editors and configuration management write several.
const quietFor = 150 * time.Millisecond

// fileWatch watches the folders of the files that the configuration is made of, not the files: editors replace files. A file
// that is reached by symbolic links has the folders of all links watched. What it misses a tick finds, so errors don't count.
type fileWatch struct {
	Changed chan struct{} // some of the files may have changed, and none has for a moment

	watcher *fsnotify.Watcher
	done    chan struct{}
	places  chan places
	folders map[string]uint64 // watched, with their inodes; only Follow uses it
}

// places holds the names whose changes count.
type places struct {
	entries map[string]bool
	dropIns string // the folder in which all *.toml count
}

// watchFiles begins to watch.
func watchFiles(sources *config.Sources) (*fileWatch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &fileWatch{
		Changed: make(chan struct{}),
		watcher: watcher,
		done:    make(chan struct{}),
		places:  make(chan places, 1),
		folders: map[string]uint64{},
	}
	w.Follow(sources)
	go w.run() // ends with Close, which waits for it
	return w, nil
}

// Follow makes the watch cover the files that the configuration consists of now, and the targets of its links.
func (w *fileWatch) Follow(sources *config.Sources) {
	files, dropIns := sources.Files()
	p := places{entries: map[string]bool{}}
	wanted := map[string]bool{}
	for _, file := range append(files, dropIns) {
		for _, entry := range way(file) {
			p.entries[entry] = true
			wanted[filepath.Dir(entry)] = true
			p.dropIns = entry // the last way is that of the folder, and its last entry is the folder itself
		}
	}
	wanted[p.dropIns] = true
	for _, folder := range slices.Collect(maps.Keys(wanted)) { // which another may replace
		p.entries[folder] = true
		wanted[filepath.Dir(folder)] = true
	}
	alive := w.watcher.WatchList() // without those that were renamed or removed, though they may be back
	for folder := range w.folders {
		if !wanted[folder] || inode(folder) != w.folders[folder] || !slices.Contains(alive, folder) {
			_ = w.watcher.Remove(folder)
			delete(w.folders, folder)
		}
	}
	for folder := range wanted {
		if _, watched := w.folders[folder]; !watched && w.watcher.Add(folder) == nil {
			w.folders[folder] = inode(folder)
		}
	}
	select {
	case <-w.places: // older ones that run has not taken yet
	default:
	}
	w.places <- p
}

// inode tells a folder from another that took its name. It is 0 where nothing is.
func inode(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino
}

// way returns all that decides which file an absolute path is: each symbolic link on the way, by the real path of its
// folder, and at last the file itself. Where a folder is missing, what comes below is taken as written, and the folder
// counts too.
func way(path string) (entries []string) {
	const longest = 40 // links, as for the kernel
	rest := strings.Split(path, "/")
	at := "/"
	for len(rest) > 0 && len(entries) < longest {
		name := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		if err != nil {
			at = next
			if os.IsNotExist(err) && len(rest) > 0 {
				entries = append(entries, at)
			}
			continue
		}
		entries = append(entries, next)
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return append(entries, at)
}

// Close ends the watch.
func (w *fileWatch) Close() {
	_ = w.watcher.Close()
	<-w.done
}

func (w *fileWatch) run() {
	defer close(w.done)
	var p places
	var changed bool
	var send chan struct{}
	quiet := time.NewTimer(0)
	for {
		select {
		case event, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if p.concern(event) {
				changed, send = true, nil
				quiet.Reset(quietFor)
			}
		case _, ok := <-w.watcher.Errors: // an overflow: look again to be sure
			if !ok {
				return
			}
			changed = true
			quiet.Reset(quietFor)
		case p = <-w.places:
		case <-quiet.C:
			if changed {
				send = w.Changed
			}
		case send <- struct{}{}:
			changed, send = false, nil
		}
	}
}

// concern reports whether an event is about the configuration. Other rights count as well, since a file may be readable
// since.
func (p places) concern(event fsnotify.Event) bool {
	name := filepath.Clean(event.Name)
	base := filepath.Base(name)
	return p.entries[name] || filepath.Dir(name) == p.dropIns && strings.HasSuffix(base, ".toml") && !strings.HasPrefix(base, ".")
}
