package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"autocertd/internal/cure"
)

// lego reads .lego: certificates/NAME.{crt,key,json}, and accounts/HOST/ID with account.json and the key. Of the CA it
// keeps the host alone, with _ for the colon of a port, until version 5.
func (r *reader) lego() error {
	byHost, err := r.legoAccounts()
	if err != nil {
		return err
	}
	keys, err := filepath.Glob(filepath.Join(r.Dir, "certificates", "*.key"))
	if err != nil {
		return err
	}
	for _, key := range keys {
		base := strings.TrimSuffix(key, ".key")
		for ending, what := range map[string]string{".pem": `key and chain in one file (format = "combined")`, ".pfx": "key and chain as PKCS#12"} {
			if _, err := os.Lstat(base + ending); err == nil {
				r.copied(filepath.Base(base), what, base+ending)
			}
		}
		c := r.add(filepath.Base(base), key, base+".crt", base+".issuer.crt")
		if c == nil {
			continue
		}
		if c.Account = r.legoIssuer(base+".json", byHost); c.Account == nil {
			r.note(base+".json", "doesn't tell which of the accounts the certificate came from")
		}
	}
	r.method(Method{Name: "its --dns provider, set up in the environment"})
	if len(keys) > 0 {
		r.addHook(Hook{Kind: "lego keeps no hooks: they stand on its command line (--renew-hook, --run-hook, --deploy-hook), in cron or a timer"})
	}
	return nil
}

// legoAccounts reads all accounts, and returns the newest at each host.
func (r *reader) legoAccounts() (map[string]*Account, error) {
	files, err := filepath.Glob(filepath.Join(r.Dir, "accounts", "*", "*", "account.json"))
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(files, func(a, b string) int { return modified(a).Compare(modified(b)) })
	byHost := map[string]*Account{}
	for _, file := range files {
		folder := filepath.Dir(file)
		host := filepath.Base(filepath.Dir(folder))
		a, err := legoAccount(folder)
		if err != nil {
			r.note(folder, err.Error())
			continue
		}
		if a.Directory == "" {
			a.Directory = r.directoryAt(func(u *url.URL) bool { return strings.ReplaceAll(u.Host, ":", "_") == host })
		}
		if a.Directory == "" {
			at := strings.Replace(host, "_", ":", 1)
			return nil, cure.New("lego keeps of the CA only its host, "+at, fmt.Sprintf("name its directory: --directory https://%s/…", at))
		}
		if byHost[host] != nil {
			r.note(folder, "is taken for the account of all certificates from "+host+", since it is the newest there")
		}
		byHost[host], r.Accounts = a, append(r.Accounts, a)
	}
	return byHost, nil
}

// legoIssuer is the account that a certificate came from, as far as the host of its URL tells.
func (r *reader) legoIssuer(file string, byHost map[string]*Account) *Account {
	var resource struct{ CertURL string }
	if readJSON(file, &resource) == nil {
		if at, err := url.Parse(resource.CertURL); err == nil && byHost[strings.ReplaceAll(at.Host, ":", "_")] != nil {
			return byHost[strings.ReplaceAll(at.Host, ":", "_")]
		}
	}
	return r.only() // the CA may keep its certificates elsewhere
}

// modified is when a file was last written; the zero time when that can't be found out.
func modified(path string) (at time.Time) {
	if info, err := os.Stat(path); err == nil {
		at = info.ModTime()
	}
	return at
}

// legoAccount reads an account, whose directory URL may be missing.
func legoAccount(folder string) (*Account, error) {
	var saved struct {
		Email, Server string
		Registration  struct{ URI, AccountURL string } // before version 5, and since
	}
	if err := readJSON(filepath.Join(folder, "account.json"), &saved); err != nil {
		return nil, err
	}
	a := &Account{Directory: saved.Server, URL: cmp.Or(saved.Registration.URI, saved.Registration.AccountURL), Email: saved.Email}
	if strings.HasPrefix(a.Email, "noemail@") { // what lego writes for none
		a.Email = ""
	}
	file := filepath.Base(folder) + ".key"
	key, err := readKey(filepath.Join(folder, "keys", file))
	if errors.Is(err, fs.ErrNotExist) {
		key, err = readKey(filepath.Join(folder, file))
	}
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	a.Key = key
	return a, nil
}
