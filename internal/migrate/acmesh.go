package migrate

import (
	"cmp"
	"errors"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
)

// acmesh reads ~/.acme.sh: NAME or NAME_ecc with NAME.conf, NAME.key and fullchain.cer, and ca/HOST/PATH with the account
// of the CA whose directory URL is of that host and path.
func (r *reader) acmesh() error {
	folders, err := filepath.Glob(filepath.Join(r.Dir, "*"))
	if err != nil {
		return err
	}
	accounts := map[string]*Account{}
	shared := readSettings(filepath.Join(r.Dir, "account.conf"))
	for _, folder := range folders {
		name := strings.TrimSuffix(filepath.Base(folder), "_ecc")
		set := readSettings(filepath.Join(folder, name+".conf"))
		if set["Le_Domain"] == "" {
			continue // a folder of its own scripts, or nothing of it
		}
		c := r.add(filepath.Base(folder), filepath.Join(folder, name+".key"),
			filepath.Join(folder, name+".cer"), filepath.Join(folder, "fullchain.cer"), filepath.Join(folder, "ca.cer"))
		if c == nil {
			continue
		}
		c.Profile = set["Le_Certificate_Profile"]
		directory := cmp.Or(set["Le_API"], letsEncrypt)
		c.Account = r.account(directory, accounts, func() (*Account, error) {
			return acmeshAccount(r.Dir, directory, shared["ACCOUNT_EMAIL"])
		})
		if c.Account == nil {
			r.note(folder, "came from an account that isn't there")
		}
		r.hook(set["Le_ReloadCmd"])
		r.hook(set["Le_RenewHook"])
		r.method(acmeshMethod(strings.Split(set["Le_Webroot"], ",")[0], shared, filepath.Join(r.Dir, "account.conf")))
	}
	return nil
}

// acmeshAccount reads the account at a CA. Older versions keep it by the host alone.
func acmeshAccount(dir, directory, email string) (*Account, error) {
	at, err := url.Parse(directory)
	if err != nil {
		return nil, err
	}
	host := filepath.Join(dir, "ca", at.Hostname())
	folder := filepath.Join(host, filepath.FromSlash(at.Path))
	key, err := readKey(filepath.Join(folder, "account.key"))
	if errors.Is(err, fs.ErrNotExist) {
		folder = host
		key, err = readKey(filepath.Join(folder, "account.key"))
	}
	if err != nil {
		return nil, err
	}
	set := readSettings(filepath.Join(folder, "ca.conf"))
	return &Account{Directory: directory, URL: set["ACCOUNT_URL"], Email: cmp.Or(set["CA_EMAIL"], email), Key: key}, nil
}

// acmeshMethod is how a certificate's records were written. The settings, secrets among them, are in one file for all.
func acmeshMethod(name string, shared map[string]string, from string) Method {
	m := Method{Name: name, From: from}
	saved := func(key string) string { return cmp.Or(shared["SAVED_"+key], shared[key]) }
	switch name {
	case "dns_nsupdate":
		m.Server, m.KeyFile = saved("NSUPDATE_SERVER"), saved("NSUPDATE_KEY")
		if port := saved("NSUPDATE_SERVER_PORT"); m.Server != "" && port != "" && port != "53" {
			m.Server = hostPort(m.Server, port)
		}
	case "dns_cf":
		m.Secret = "SAVED_CF_Token"
	}
	return m
}
