package config

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"autocertd/internal/durable"
	"autocertd/internal/secret"
)

// Sources are the files that a configuration was made of, as they were when it was: TOML files, the folder of drop-ins, keys,
// secrets, roots, requests. They are followed through symbolic links, so that it doesn't matter by which way one changes.
// The zero value has none; see Checks. While the files are read, one goroutine alone has it; afterwards any may.
type Sources struct {
	mu    sync.Mutex // guards what list says of each file: Changed learns that one was touched
	list  []source
	known map[string]int
}

// source is one file, or the folder of drop-ins.
type source struct {
	path   string // absolute
	folder bool
	names  []string // of the files in a folder that are read
	seen   sight
	sum    [sha256.Size]byte // of the content; zero when there was none to read
	racy   bool              // it had changed just before, so a further change may leave its times as they are
}

// sight holds the facts by which a change of a file is found without reading it.
type sight struct {
	Inode    int64 `json:"inode"`
	Size     int64 `json:"size"`
	Modified int64 `json:"modified"` // in nanoseconds since 1970
	Changed  int64 `json:"changed"`  // likewise, of the content or of owner and mode
}

// A Change is a file that isn't as it was.
type Change struct {
	File string    `json:"file"`
	At   time.Time `json:"at,omitzero"` // when it changed, by its folder; zero when it is gone
}

// racyTime is the coarsest step of the times that file systems keep.
const racyTime = 2 * time.Second

// note remembers a file. It is called before the file is read: a change in between is then found later, and one more reading
// does no harm.
func (s *Sources) note(path string, folder bool) {
	if s == nil || path == "" {
		return
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if _, ok := s.known[path]; ok {
		return
	}
	if s.known == nil {
		s.known = map[string]int{}
	}
	s.known[path] = len(s.list)
	now := time.Now()
	src := source{path: path, folder: folder, seen: look(path)}
	if folder {
		src.names, _ = dropInNames(path) // who reads it next says why not
	} else {
		src.sum = src.content()
	}
	src.racy = now.Sub(time.Unix(0, max(src.seen.Changed, src.seen.Modified))) < racyTime
	s.list = append(s.list, src)
}

// look returns the zero sight for what can't be seen.
func look(path string) (s sight) {
	info, err := os.Stat(path)
	if err != nil {
		return s
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s = sight{int64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
	}
	return s
}

// content sums up what is read of a file. What can't be read has a sum of its own.
func (s *source) content() (sum [sha256.Size]byte) {
	data, err := durable.Read(s.path, maxFileSize)
	if err != nil {
		return sum
	}
	return sha256.Sum256(data)
}

// added returns the files of a folder that weren't there. Those that are gone are sources of their own.
func added(folder string, names []string) (paths []string) {
	now, _ := dropInNames(folder)
	for _, name := range now {
		if _, there := slices.BinarySearch(names, name); !there { // they are sorted
			paths = append(paths, filepath.Join(folder, name))
		}
	}
	return paths
}

// dropInNames returns the files of a folder that are read, in their order. Editors keep their temporary files under names
// that begin with a dot.
func dropInNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, err
}

// Changed returns the files whose content isn't what it was, those that are gone, and those that came.
func (s *Sources) Changed() (paths []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list {
		src := &s.list[i]
		seen := look(src.path)
		if seen == src.seen && !src.racy {
			continue
		}
		now := time.Now()
		if src.folder {
			if came := added(src.path, src.names); len(came) > 0 {
				paths = append(paths, came...)
				continue
			}
		} else if src.content() != src.sum {
			paths = append(paths, src.path)
			continue
		}
		src.seen = seen // other times or rights, the same content
		src.racy = now.Sub(time.Unix(0, max(seen.Changed, seen.Modified))) < racyTime
	}
	return paths
}

// Files returns the paths of all files, without the folder of drop-ins, whose path is the other result.
func (s *Sources) Files() (files []string, dropIns string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.list {
		if src.folder {
			dropIns = src.path
		} else {
			files = append(files, src.path)
		}
	}
	return files, dropIns
}

// savedSource is a source as another process can compare it. It tells nothing of what the file holds.
type savedSource struct {
	Path   string   `json:"path"`
	Folder bool     `json:"folder,omitempty"`
	Names  []string `json:"names,omitempty"` // of what was read in a folder
	Seen   sight    `json:"seen"`
}

// MarshalJSON writes what ChangesSince reads.
func (s *Sources) MarshalJSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]savedSource, len(s.list))
	for i, src := range s.list {
		list[i] = savedSource{Path: src.path, Folder: src.folder, Names: src.names, Seen: src.seen}
	}
	return json.Marshal(list)
}

// ChangesSince returns which files changed since the JSON was written that another process made of its Sources: by their
// place, size and time of modification, since it may not be allowed to read them.
func ChangesSince(data []byte) (changes []Change, err error) {
	var list []savedSource
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	for _, src := range list {
		now := look(src.Path)
		if src.Folder {
			for _, file := range added(src.Path, src.Names) {
				changes = append(changes, changeOf(file, look(file)))
			}
		} else if now.Inode != src.Seen.Inode || now.Size != src.Seen.Size || now.Modified != src.Seen.Modified {
			changes = append(changes, changeOf(src.Path, now))
		}
	}
	return changes, nil
}

func changeOf(path string, s sight) Change {
	c := Change{File: path}
	if s != (sight{}) {
		c.At = time.Unix(0, max(s.Changed, s.Modified)).UTC()
	}
	return c
}

// noteSecret remembers the file that a secret's TOML value names, if it names one.
func (s *Sources) noteSecret(v any, dir string) { s.note(secret.File(v, dir), false) }
