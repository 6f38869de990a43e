package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// The formats of an [Output].
const (
	FormatPEM      = "pem"      // cert.pem, chain.pem, fullchain.pem and privkey.pem in a directory
	FormatCombined = "combined" // one file: leaf, chain, key, or the key first
)

// Output is one place where a bundle goes, and what has to happen once it is there.
type Output struct {
	Dir    string // absolute, may hold {name}; created with mode 0755 where absent, otherwise left as it is
	File   string // of format combined, may hold {name}; empty: "{name}.pem"
	Format string // empty: FormatPEM

	KeyFirst bool // of format combined: the key comes before the leaf, as Postfix wants it; else last

	Owner, Group string      // of the files, name or number; empty: those of the daemon, and not looked at
	Mode         fs.FileMode // of files that hold a key, 0: 0600; all others have 0644

	Reload []string   // systemd units
	Run    [][]string // argument lists; {name} is replaced in each
}

// ID says where the output writes for the named certificate. It stays the same as long as that does.
func (o Output) ID(name string) string {
	if o.Format == FormatCombined {
		return filepath.Join(o.dir(name), o.file(name))
	}
	return o.dir(name)
}

func (o Output) dir(name string) string { return filepath.Clean(expand(o.Dir, name)) }

// fixedDir is the part of Dir that is the same for every certificate.
func (o Output) fixedDir() string {
	before, _, named := strings.Cut(o.Dir, "{name}")
	if !named {
		return filepath.Clean(o.Dir)
	}
	return filepath.Dir(before + "x")
}

func (o Output) file(name string) string {
	if o.File == "" {
		return name + ".pem"
	}
	return expand(o.File, name)
}

func expand(s, name string) string { return strings.ReplaceAll(s, "{name}", name) }

// mark stands for the bundle together with what has to happen after its files are in place.
func (o Output) mark(b Bundle) string {
	h := sha256.New()
	// Writing strings to a hash can't fail.
	_ = json.NewEncoder(h).Encode([]any{strings.ToLower(b.Fingerprint), o.Reload, o.Run})
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// place is an output's files on disk in one format.
//
// look only reads: are the files right, and is something still to happen after they were written? write replaces the files,
// never showing a reader a part of a file or a key beside a foreign certificate; when something has to happen after it, it
// leaves a marker no later than the files, which done removes once all that has succeeded. A write that fails or dies anywhere
// is healed by looking and writing again. paths are the files as services know them, env the same as variables for commands.
type place interface {
	look() (right, pending bool, err error)
	write() error
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
	secret := o.Mode.Perm()
	if secret == 0 {
		secret = 0o600
	}
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
	marked bool // leave a marker with a change: something has to happen after it
}
