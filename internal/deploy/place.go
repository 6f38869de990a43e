package deploy

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
)

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
