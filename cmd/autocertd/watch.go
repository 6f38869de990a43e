package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"autocertd/internal/config"
)

// settle is how long files must be quiet before they are read: editors and configuration management write several.
const settle = 150 * time.Millisecond

// fileWatch watches the folders of the configuration, not its files: editors replace files.
type fileWatch struct {
	Changed chan string // a file that changed; one value for several changes in a row

	watcher *fsnotify.Watcher
	done    chan struct{}
	extra   chan []string
}

// watchFiles begins to watch.
func watchFiles(cfg *config.Config) (*fileWatch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &fileWatch{Changed: make(chan string), watcher: watcher, done: make(chan struct{}), extra: make(chan []string, 1)}
	if err := watcher.Add(filepath.Dir(cfg.Path)); err != nil {
		return nil, err
	}
	w.Follow(cfg)
	go w.run() // ends with Close, which waits for it
	return w, nil
}

// Follow makes the watch cover what the configuration names now. A folder that isn't there is followed when it appears,
// since that changes the folder above.
func (w *fileWatch) Follow(cfg *config.Config) {
	folders := []string{filepath.Join(filepath.Dir(cfg.Path), "conf.d")}
	var files []string
	for _, ca := range cfg.CAs {
		for _, file := range ca.RootFiles {
			files = append(files, filepath.Clean(file))
			folders = append(folders, filepath.Dir(file))
		}
	}
	for _, c := range cfg.Certificates {
		if c.CSRFile != "" {
			files = append(files, filepath.Clean(c.CSRFile))
			folders = append(folders, filepath.Dir(c.CSRFile))
		}
	}
	watched := w.watcher.WatchList()
	for _, folder := range folders {
		if info, err := os.Stat(folder); err == nil && info.IsDir() && !slices.Contains(watched, folder) {
			_ = w.watcher.Add(folder) // SIGHUP works without
		}
	}
	select {
	case <-w.extra: // nobody has taken the older list yet
	default:
	}
	w.extra <- files
}

// Close ends the watch.
func (w *fileWatch) Close() {
	_ = w.watcher.Close()
	<-w.done
}

func (w *fileWatch) run() {
	defer close(w.done)
	var files []string
	var changed string
	var send chan string
	quiet := time.NewTimer(0)
	for {
		select {
		case event, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if concerns(event, files) {
				changed, send = event.Name, nil
				quiet.Reset(settle)
			}
		case _, ok := <-w.watcher.Errors: // an overflow: read again to be sure
			if !ok {
				return
			}
			changed = "configuration"
			quiet.Reset(settle)
		case files = <-w.extra:
		case <-quiet.C:
			if changed != "" {
				send = w.Changed
			}
		case send <- changed:
			changed, send = "", nil
		}
	}
}

// concerns reports whether an event is about the configuration: a TOML file, the drop-in folder, a CA's roots, or a CSR.
func concerns(event fsnotify.Event, files []string) bool {
	if event.Op == fsnotify.Chmod {
		return false
	}
	base := filepath.Base(event.Name)
	return base == "conf.d" || slices.Contains(files, filepath.Clean(event.Name)) ||
		strings.HasSuffix(base, ".toml") && !strings.HasPrefix(base, ".")
}
