package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// current is the link that every reader goes through. It is the only thing that a switch changes.
const current = ".current"

// pendingName is the marker of a versioned directory. It lies in the version's folder, so that it appears with the switch.
const pendingName = ".pending"

// versionName matches the folders that we made, and nothing else.
var versionName = regexp.MustCompile(`^\.autocertd-[0-9a-f]{12}(-[0-9]{1,9})?$`)

// versioned is the format pem: a directory that stays, with
//
//	.autocertd-<12 hex of the fingerprint>[-N]/   the files of one version; the version before is kept for its readers
//	.current                                      a link to the version
//	cert.pem chain.pem fullchain.pem privkey.pem  links to .current/…
//
// There is no privkey.pem when the key is elsewhere.
//
// Whatever differs, a whole new version is written and switched to: there is one way to change, and it can't be seen half
// done. A reader that opens .current once has a pair for as long as it reads.
type versioned struct {
	location
	fingerprint string
	files       []file
}

func (v *versioned) path(name string) string { return filepath.Join(v.dir, name) }

func (v *versioned) marker() string { return filepath.Join(v.path(current), pendingName) }

func (v *versioned) paths() []string {
	var out []string
	for _, f := range v.files {
		out = append(out, v.path(f.name))
	}
	return out
}

func (v *versioned) env() []string {
	variables := map[string]string{"cert.pem": "AUTOCERTD_CERT", "chain.pem": "AUTOCERTD_CHAIN",
		"fullchain.pem": "AUTOCERTD_FULLCHAIN", "privkey.pem": "AUTOCERTD_KEY"}
	var env []string
	for _, f := range v.files {
		env = append(env, variables[f.name]+"="+v.path(f.name))
	}
	return env
}

func (v *versioned) right() (bool, error) {
	version, err := linkTarget(v.path(current))
	if err != nil || !versionName.MatchString(version) {
		return false, err
	}
	fi, err := os.Lstat(v.path(version))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || fi.Mode() != fs.ModeDir|folderMode {
		return false, err
	}
	for _, f := range v.files {
		if ok, err := v.linked(f.name); !ok {
			return false, err
		}
		if ok, err := same(filepath.Join(v.path(version), f.name), f, v.owner); !ok {
			return false, err
		}
	}
	return true, nil
}

// linked reports whether a file's name leads through .current.
func (v *versioned) linked(name string) (bool, error) {
	target, err := linkTarget(v.path(name))
	return target == current+"/"+name, err
}

// write makes the directory, or builds a new version in it and switches to it.
func (v *versioned) write() error {
	if !exists(v.dir) {
		return v.writeFirst()
	}
	return v.writeNext()
}

// writeFirst builds the whole directory beside its place. It appears complete, or not at all.
func (v *versioned) writeFirst() error {
	parent := filepath.Dir(v.dir)
	if err := v.disk.makeDir(parent); err != nil {
		return err
	}
	if err := v.disk.swap(v.dir, func(tmp string) error {
		if err := v.disk.mkdir(tmp); err != nil {
			return err
		}
		w := *v
		w.dir = tmp
		if err := v.disk.symlink(v.version(), w.path(current)); err != nil {
			return err
		}
		for _, f := range v.files {
			if err := v.disk.symlink(current+"/"+f.name, w.path(f.name)); err != nil {
				return err
			}
		}
		_, err := w.build(tmp)
		return err
	}); err != nil {
		return err
	}
	// A power failure before this line may take the directory away, whole. The next look then makes it again.
	return v.disk.sync(parent)
}

// writeNext builds a new version and switches to it.
func (v *versioned) writeNext() error {
	previous, err := linkTarget(v.path(current))
	if err != nil {
		return err
	}
	// Dying before the switch leaves a folder that nobody reads. The pruning after the next switch removes it.
	version, err := v.build()
	if err != nil {
		return err
	}
	if err := v.disk.link(version, v.path(current)); err != nil {
		_ = v.disk.removeAll(v.path(version))
		return err
	}
	// Dying from here on leaves the new pair in use, with its marker. Links come after the switch, since on the first
	// deployment they may replace files of a service that runs, and must lead somewhere at once.
	for _, f := range v.files {
		ok, err := v.linked(f.name)
		if err == nil && !ok {
			err = v.disk.link(current+"/"+f.name, v.path(f.name))
		}
		if err != nil {
			return err
		}
	}
	// A power failure before this line may bring the old version back, whole. The next look then finds a difference.
	if err := v.disk.sync(v.dir); err != nil {
		return err
	}
	return v.prune(version, previous)
}

// version is the name of the first folder that this bundle's files get.
func (v *versioned) version() string { return ours + v.fingerprint[:12] }

// build writes the files into a folder of their own, with the marker, and makes all of it durable, with the names in the
// folders above that are new too.
func (v *versioned) build(above ...string) (version string, err error) {
	version = v.version()
	err = v.disk.mkdir(v.path(version))
	for n := 2; errors.Is(err, fs.ErrExist); n++ {
		version = fmt.Sprintf("%s-%d", v.version(), n)
		err = v.disk.mkdir(v.path(version))
	}
	if err != nil {
		return "", err
	}
	folder := v.path(version)
	defer func() {
		if err != nil {
			// Gives back a full disk what it needs. If this fails too, the next pruning does it.
			_ = v.disk.removeAll(folder)
		}
	}()
	if v.marked {
		if err := v.disk.touch(filepath.Join(folder, pendingName)); err != nil {
			return "", err
		}
	}
	return version, v.disk.create(folder, v.owner, v.files, append(above, folder)...)
}

// prune removes all versions but two. Dying on the way leaves more of them until the next switch.
func (v *versioned) prune(version, previous string) error {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || !versionName.MatchString(name) || name == version || name == previous {
			continue
		}
		if err := v.disk.removeAll(v.path(name)); err != nil {
			return err
		}
	}
	return nil
}
