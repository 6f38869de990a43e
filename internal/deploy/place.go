package deploy

import (
	"cmp"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bundle is what was issued for a certificate, with the facts that commands are told.
type Bundle struct {
	Name      string   // of the certificate; stands for {name}
	Hostnames []string // in the leaf

	Key, Leaf, Chain []byte // PEM; Chain without the leaf, perhaps empty
	KeyElsewhere     bool   // there is no Key, and that is as it should be

	NotAfter    time.Time
	Serial      string // hex
	Fingerprint string // SHA-256 of the leaf's DER, hex
}

// check refuses a bundle whose name or fingerprint can't become part of a path.
func (b Bundle) check() error {
	if b.Name == "" || b.Name == "." || b.Name == ".." || strings.ContainsAny(b.Name, "/\x00") {
		return fmt.Errorf("deploy certificate %q: the name can't be part of a path", b.Name)
	}
	if sum, err := hex.DecodeString(b.Fingerprint); err != nil || len(sum) != 32 {
		return fmt.Errorf("deploy certificate %s: the fingerprint %q is not a SHA-256 in hex", b.Name, b.Fingerprint)
	}
	return nil
}

// pair refuses a key and a chain that don't belong together. It is asked before each write, not at each look.
func (b Bundle) pair() error {
	if b.KeyElsewhere {
		return nil
	}
	if _, err := tls.X509KeyPair(b.fullchain(), b.Key); err != nil {
		return fmt.Errorf("the bundle of %s is unusable: %w", b.Name, err)
	}
	return nil
}

func (b Bundle) fullchain() []byte { return joinPEM(b.Leaf, b.Chain) }

// joinPEM puts PEM texts behind one another, each ending with a newline.
func joinPEM(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
		if n := len(out); n > 0 && out[n-1] != '\n' {
			out = append(out, '\n')
		}
	}
	return out
}

// place is an output's files on disk in one format.
//
// look only reads: it reports whether the files are right, and the change that their marker names, "" where there is none.
// write replaces the files, never showing a reader a part of a file or a key beside a foreign certificate; when other steps
// follow, it leaves a marker that names the change no later than the files, which done removes once all of them have
// succeeded. A write that fails or dies anywhere is healed by looking and writing again. paths returns the files as services
// know them, env the same as variables for commands.
type place interface {
	look() (right bool, change string, err error)
	write(change string) error
	done() error
	paths() []string
	env() []string
}

// place checks the output and binds it to the bundle.
func (o Output) place(d *disk, b Bundle) (place, error) {
	dir := o.dir(b.Name)
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("the directory %q is not an absolute path", dir)
	}
	own, err := lookupOwner(o.Owner, o.Group)
	if err != nil {
		return nil, err
	}
	at := location{disk: d, dir: dir, owner: own, marked: len(o.Reload)+len(o.Run) > 0}
	secret := cmp.Or(o.Mode.Perm(), secretMode)
	switch o.Format {
	case "", FormatPEM:
		files := []file{
			{"cert.pem", joinPEM(b.Leaf), publicMode},
			{"chain.pem", joinPEM(b.Chain), publicMode},
			{"fullchain.pem", b.fullchain(), publicMode},
		}
		if !b.KeyElsewhere {
			files = append(files, file{"privkey.pem", joinPEM(b.Key), secret})
		}
		return &versioned{location: at, fingerprint: strings.ToLower(b.Fingerprint), files: files}, nil
	case FormatCombined:
		if b.KeyElsewhere {
			return nil, fmt.Errorf("the format %s needs the key, which is elsewhere; use %s", FormatCombined, FormatPEM)
		}
		name := o.file(b.Name)
		if name != filepath.Base(name) || name == "." || name == ".." {
			return nil, fmt.Errorf("%q is not the name of a file in %s", name, dir)
		}
		content := joinPEM(b.Leaf, b.Chain, b.Key)
		if o.KeyFirst {
			content = joinPEM(b.Key, b.Leaf, b.Chain)
		}
		return &single{location: at, file: file{name, content, secret}}, nil
	}
	return nil, fmt.Errorf("unknown format %q; known are %s and %s", o.Format, FormatPEM, FormatCombined)
}

// location is where an output writes, and as whom.
type location struct {
	disk   *disk
	dir    string
	owner  owner
	marked bool // leave a marker with a change: other steps follow
}

// single is the format combined: one file, replaced by one rename. Its marker lies beside it.
type single struct {
	location
	file file
}

func (s *single) path() string { return filepath.Join(s.dir, s.file.name) }

func (s *single) marker() string { return ours + s.file.name + ".pending" }

func (s *single) paths() []string { return []string{s.path()} }

func (s *single) env() []string { return []string{"AUTOCERTD_COMBINED=" + s.path()} }

func (s *single) look() (right bool, change string, err error) {
	dir, err := openFolder(s.dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	defer dir.close()
	right, err = dir.same(s.file, s.owner)
	return right, dir.marked(s.marker()), err
}

func (s *single) write(change string) error {
	dir, err := s.disk.makeDir(s.dir)
	if err != nil {
		return err
	}
	defer dir.close()
	if s.marked {
		// Dying between these leaves no marker of an earlier change, and its file, which differs from what is to be written.
		if err := s.disk.remove(dir, s.marker()); err != nil {
			return err
		}
		// Dying after this one leaves a marker beside the old file: a difference and a marker, both healed together.
		if err := s.disk.mark(dir, s.marker(), change); err != nil {
			return err
		}
	}
	// Dying within leaves at most a temporary file, which the next try removes.
	if err := s.disk.replace(dir, s.file, s.owner); err != nil {
		return err
	}
	// A power failure before this line may bring the old file back, whole. The next look then finds a difference.
	return s.disk.sync(dir)
}

func (s *single) done() error {
	dir, err := openFolder(s.dir, nil)
	if err != nil {
		return err
	}
	defer dir.close()
	return s.disk.remove(dir, s.marker())
}

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

func (v *versioned) look() (right bool, change string, err error) {
	dir, err := openFolder(v.dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	defer dir.close()
	version, err := v.current(dir)
	if version == nil {
		return false, "", err
	}
	defer version.close()
	right, err = v.right(dir, version)
	return right, version.marked(pendingName), err
}

// current opens the version that readers get, and returns nil when there is none of ours.
func (v *versioned) current(dir *folder) (*folder, error) {
	name, err := dir.target(current)
	if err != nil || !versionName.MatchString(name) {
		return nil, err
	}
	version, err := dir.folder(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil // another thing stands there
	}
	return version, err
}

func (v *versioned) right(dir, version *folder) (bool, error) {
	if st, err := version.stat(); err != nil || st.Mode != unix.S_IFDIR|folderMode {
		return false, err
	}
	for _, f := range v.files {
		if ok, err := v.linked(dir, f.name); !ok {
			return false, err
		}
		if ok, err := version.same(f, v.owner); !ok {
			return false, err
		}
	}
	return true, nil
}

// linked reports whether a file's name leads through .current.
func (v *versioned) linked(dir *folder, name string) (bool, error) {
	target, err := dir.target(name)
	return target == current+"/"+name, err
}

// write makes the directory, or builds a new version in it and switches to it.
func (v *versioned) write(change string) error {
	dir, err := openFolder(v.dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return v.writeFirst(change)
	}
	if err != nil {
		return err
	}
	defer dir.close()
	return v.writeNext(dir, change)
}

// writeFirst builds the whole directory beside its place. It appears complete, or not at all.
func (v *versioned) writeFirst(change string) error {
	parent, base, err := v.disk.parent(v.dir)
	if err != nil {
		return err
	}
	defer parent.close()
	if err := v.disk.swap(parent, base, func(tmp string) error {
		dir, err := v.disk.mkdir(parent, tmp)
		if err != nil {
			return err
		}
		defer dir.close()
		if err := v.disk.symlink(dir, v.version(), current); err != nil {
			return err
		}
		for _, f := range v.files {
			if err := v.disk.symlink(dir, current+"/"+f.name, f.name); err != nil {
				return err
			}
		}
		_, err = v.build(dir, change, dir)
		return err
	}); err != nil {
		return err
	}
	// A power failure before this line may take the directory away, whole. The next look then makes it again.
	return v.disk.sync(parent)
}

// writeNext builds a new version and switches to it.
func (v *versioned) writeNext(dir *folder, change string) error {
	previous, err := dir.target(current)
	if err != nil {
		return err
	}
	// Dying before the switch leaves a folder that nobody reads. The pruning after the next switch removes it.
	version, err := v.build(dir, change)
	if err != nil {
		return err
	}
	if err := v.disk.link(dir, version, current); err != nil {
		_ = v.disk.removeAll(dir, version)
		return err
	}
	// Dying from here on leaves the new pair in use, with its marker. Links come after the switch, since on the first
	// deployment they may replace files of a service that runs, and must lead somewhere at once.
	for _, f := range v.files {
		ok, err := v.linked(dir, f.name)
		if err == nil && !ok {
			err = v.disk.link(dir, current+"/"+f.name, f.name)
		}
		if err != nil {
			return err
		}
	}
	// A power failure before this line may bring the old version back, whole. The next look then finds a difference.
	if err := v.disk.sync(dir); err != nil {
		return err
	}
	return v.prune(dir, version, previous)
}

// version is the name of the first folder that this bundle's files get.
func (v *versioned) version() string { return ours + v.fingerprint[:12] }

// build writes the files into a folder of their own, with the marker, and makes all of it durable, with the names in the
// folders above that are new too.
func (v *versioned) build(dir *folder, change string, above ...*folder) (version string, err error) {
	const most = 1000 // versions of one certificate: more were made by somebody else
	version = v.version()
	made, err := v.disk.mkdir(dir, version)
	for n := 2; errors.Is(err, fs.ErrExist) && n < most; n++ {
		version = fmt.Sprintf("%s-%d", v.version(), n)
		made, err = v.disk.mkdir(dir, version)
	}
	if err != nil {
		return "", err
	}
	defer made.close()
	defer func() {
		if err != nil {
			// Gives back a full disk what it needs. If this fails too, the next pruning does it.
			_ = v.disk.removeAll(dir, version)
		}
	}()
	if v.marked {
		if err := v.disk.mark(made, pendingName, change); err != nil {
			return version, err
		}
	}
	return version, v.disk.create(made, v.owner, v.files, append(above, made)...)
}

// done removes the marker.
func (v *versioned) done() error {
	dir, err := openFolder(v.dir, nil)
	if err != nil {
		return err
	}
	defer dir.close()
	version, err := v.current(dir)
	if version == nil {
		return err
	}
	defer version.close()
	return v.disk.remove(version, pendingName)
}

// prune removes all versions but two. Dying on the way leaves more of them until the next switch.
func (v *versioned) prune(dir *folder, version, previous string) error {
	const most = 100 // at a time; the next switch goes on
	var old []string
	err := dir.list(func(e fs.DirEntry) {
		name := e.Name()
		if len(old) < most && e.IsDir() && versionName.MatchString(name) && name != version && name != previous {
			old = append(old, name)
		}
	})
	if err != nil {
		return err
	}
	for _, name := range old {
		if err := v.disk.removeAll(dir, name); err != nil {
			return err
		}
	}
	return nil
}
