// Package migrate reads what other ACME clients keep on disk, and moves their accounts and certificates into the state
// directory. It asks no CA and changes nothing of theirs; how the objects look is the business of issuer and lifecycle.
package migrate

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Clients returns the names of the clients that Read knows.
func Clients() []string { return []string{"certbot", "lego", "acme.sh", "dehydrated"} }

// A Tree is what another client left.
type Tree struct {
	Client       string
	Dir          string
	Accounts     []*Account // those that the certificates came from; all, where that isn't known
	Certificates []*Certificate
	Methods      []Method // how the client wrote records, each once
	Hooks        []Hook   // how services were reloaded after a renewal, and whatever else was done
	Copies       []Copy   // files that it wrote for services
	Roots        string   // a file of roots by which it trusted its CA; "" for those of the system
	Live         string   // where services read the files, with {name}; "" where the files have other names than ours
	Notes        []string // what isn't taken over, and why
}

// An Account is one that the client registered.
type Account struct {
	CA        string // what the configuration calls the CA
	Directory string
	URL       string // "" where the client doesn't keep it: the CA tells it for the key
	Email     string
	Key       crypto.Signer
}

// A Certificate is one that the client got.
type Certificate struct {
	Name      string
	was       string // what the client calls it
	Hostnames []string
	KeyType   string // as the configuration names it; "" for one that it has no name for
	Profile   string
	Account   *Account // nil when it isn't known: then the certificate is ordered anew
	Key       crypto.Signer
	Chain     []*x509.Certificate // the leaf first
}

// Leaf is the certificate itself.
func (c *Certificate) Leaf() *x509.Certificate { return c.Chain[0] }

// Options are what the tree alone doesn't say.
type Options struct {
	// Directories are the directory URLs of CAs, for clients that keep less of them.
	Directories []string
	// Names are what the configuration calls CAs, by their directory.
	Names map[string]string
}

// reader gathers a tree.
type reader struct {
	*Tree
	directories []string // that the caller named
	configured  []string // those of the configuration
}

// Read reads the tree of a client. What can't be used is named in its Notes; an error says that nothing can, or that a
// directory URL is needed.
func Read(client, dir string, o Options) (*Tree, error) {
	if err := readable(dir); err != nil {
		return nil, err
	}
	r := &reader{Tree: &Tree{Client: client, Dir: dir}, directories: o.Directories, configured: slices.Sorted(maps.Keys(o.Names))}
	var err error
	switch client {
	case "certbot":
		err = r.certbot()
	case "lego":
		err = r.lego()
	case "acme.sh":
		err = r.acmesh()
	case "dehydrated":
		err = r.dehydrated()
	default:
		err = fmt.Errorf("%q isn't a client that can be imported: %s", client, strings.Join(Clients(), ", "))
	}
	if err != nil {
		return nil, err
	}
	if len(r.Accounts)+len(r.Certificates) == 0 {
		return nil, errors.Join(fmt.Errorf("%s holds no account and no certificate of %s", dir, client), r.noted())
	}
	r.leaveUnused()
	r.nameCAs(o.Names)
	r.nameCertificates()
	return r.Tree, nil
}

// readable reports why a folder, or one in it, can't be looked into. Patterns of file names would pass over it.
func readable(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 0 {
		err = fmt.Errorf("%s is empty", dir)
	}
	for _, entry := range entries {
		if _, denied := os.ReadDir(filepath.Join(dir, entry.Name())); errors.Is(denied, fs.ErrPermission) && entry.IsDir() {
			return denied
		}
	}
	return err
}

// noted is what was found wrong on the way, as an error.
func (r *reader) noted() error {
	if len(r.Notes) == 0 {
		return nil
	}
	return errors.New(strings.Join(r.Notes, "\n"))
}

// note says of a file or folder why it isn't taken over.
func (r *reader) note(what, why string) { r.Notes = append(r.Notes, what+": "+why) }

// account returns the account at a path, which read makes at the first time. What isn't there is nil, without a note.
func (r *reader) account(path string, known map[string]*Account, read func() (*Account, error)) *Account {
	if a, ok := known[path]; ok {
		return a
	}
	a, err := read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.note(path, err.Error())
	}
	if err != nil {
		a = nil
	} else {
		r.Accounts = append(r.Accounts, a)
	}
	known[path] = a
	return a
}

// add takes a certificate, or notes why it can't be used.
func (r *reader) add(name string, keyFile string, chainFiles ...string) *Certificate {
	c, err := readPair(keyFile, chainFiles...)
	if err != nil {
		r.note(keyFile, err.Error())
		return nil
	}
	c.Name, c.was = name, name
	if c.KeyType == "" {
		r.note(keyFile, "is a kind of key that isn't made here; the certificate is ordered anew with another")
	}
	r.Certificates = append(r.Certificates, c)
	return c
}

// only is the account when there is just one.
func (r *reader) only() *Account {
	if len(r.Accounts) == 1 {
		return r.Accounts[0]
	}
	return nil
}

// leaveUnused drops the accounts that no certificate came from, such as one for tests at a staging CA. When it isn't
// known of any, all stay.
func (r *reader) leaveUnused() {
	if !slices.ContainsFunc(r.Certificates, func(c *Certificate) bool { return c.Account != nil }) {
		return
	}
	r.Accounts = slices.DeleteFunc(r.Accounts, func(a *Account) bool {
		unused := r.uses(a) == 0
		if unused {
			r.note(a.Directory, "the account there isn't taken over, since no certificate came from it")
		}
		return unused
	})
}

// uses is how many certificates came from an account.
func (t *Tree) uses(a *Account) (n int) {
	for _, c := range t.Certificates {
		if c.Account == a {
			n++
		}
	}
	return n
}
