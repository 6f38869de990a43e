package migrate

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"autocertd/internal/knownca"
)

// acmesh reads ~/.acme.sh: NAME or NAME_ecc with NAME.conf, NAME.key and fullchain.cer, and ca/HOST/PATH with the account
// of the CA whose directory URL is of that host and path.
//
// Certificates may be in a folder of their own, CERT_HOME.
func (r *reader) acmesh() error {
	config := filepath.Join(r.Dir, "account.conf")
	shared := readShell(config, map[string]string{"LE_WORKING_DIR": r.Dir, "LE_CONFIG_HOME": r.Dir})
	r.Roots = shared["CA_BUNDLE"]
	if hook := shared["NOTIFY_HOOK"]; hook != "" {
		r.addHook(Hook{Kind: "NOTIFY_HOOK", In: []string{"account.conf"}, Command: withoutSecrets(hook), notes: "it told people"})
	}
	homes := []string{r.Dir}
	if home := filepath.Clean(shared["CERT_HOME"]); shared["CERT_HOME"] != "" && home != filepath.Clean(r.Dir) {
		homes = append(homes, home)
		if err := readable(home); err != nil {
			r.note(home, "the certificates there, CERT_HOME in account.conf, can't be read: "+err.Error())
		}
	}
	accounts := map[string]*Account{}
	for _, home := range homes {
		folders, err := filepath.Glob(filepath.Join(home, "*"))
		if err != nil {
			return err
		}
		for _, folder := range folders {
			r.acmeshCertificate(folder, config, shared, accounts)
		}
	}
	if len(r.Accounts) == 0 { // no certificate says which is in use
		return r.acmeshAccounts(accounts, shared["ACCOUNT_EMAIL"])
	}
	return nil
}

// acmeshCertificate reads a certificate's folder, if it is one.
func (r *reader) acmeshCertificate(folder, config string, shared map[string]string, accounts map[string]*Account) {
	base := filepath.Base(folder)
	name := strings.TrimSuffix(base, "_ecc")
	set := readShell(filepath.Join(folder, name+".conf"), nil)
	if set["Le_Domain"] == "" {
		return // a folder of its own scripts, or nothing of it
	}
	where := base + "/" + name + ".conf"
	for _, key := range []string{"Le_PreHook", "Le_PostHook", "Le_RenewHook", "Le_ReloadCmd"} {
		r.hook(key, where, set[key], base)
	}
	for hook := range strings.SplitSeq(set["Le_DeployHook"], ",") {
		if hook = strings.TrimSpace(hook); hook != "" {
			r.addHook(Hook{Kind: "Le_DeployHook", In: []string{where}, Command: "deploy/" + withoutSecrets(hook) + ".sh", For: []string{base}})
		}
	}
	for key, what := range map[string]string{"Le_RealCertPath": "cert.pem", "Le_RealCACertPath": "chain.pem",
		"Le_RealFullChainPath": "fullchain.pem", "Le_RealKeyPath": "privkey.pem"} {
		r.copied(base, what, set[key])
	}
	for _, key := range slices.Sorted(maps.Keys(set)) { // where its deploy hooks write
		if strings.Contains(strings.ToUpper(key), "DEPLOY_") && filepath.IsAbs(set[key]) {
			r.copied(base, oneLine(strings.TrimPrefix(key, "SAVED_")), set[key])
		}
	}
	slices.SortStableFunc(r.Copies, func(a, b Copy) int { return cmp.Or(cmp.Compare(a.For, b.For), cmp.Compare(a.What, b.What)) })
	c := r.add(base, filepath.Join(folder, name+".key"),
		filepath.Join(folder, name+".cer"), filepath.Join(folder, "fullchain.cer"), filepath.Join(folder, "ca.cer"))
	if c == nil {
		return
	}
	c.Profile = set["Le_Certificate_Profile"]
	directory := cmp.Or(set["Le_API"], knownca.Directory(knownca.LetsEncrypt))
	c.Account = r.account(directory, accounts, func() (*Account, error) {
		return acmeshAccount(r.Dir, directory, shared["ACCOUNT_EMAIL"])
	})
	if c.Account == nil {
		r.note(folder, "came from an account that isn't there")
	}
	for name := range strings.SplitSeq(set["Le_Webroot"], ",") {
		r.method(acmeshMethod(strings.TrimSpace(name), shared, config))
	}
}

// acmeshAccounts reads all accounts: their folders are named after the directory URL.
func (r *reader) acmeshAccounts(known map[string]*Account, email string) error {
	root := filepath.Join(r.Dir, "ca")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "account.key" {
			return err
		}
		if rel, err := filepath.Rel(root, filepath.Dir(path)); err == nil {
			directory := "https://" + filepath.ToSlash(rel)
			if !strings.Contains(rel, "/") {
				directory = r.directoryAt(func(u *url.URL) bool { return u.Hostname() == rel })
			}
			r.account(directory, known, func() (*Account, error) { return acmeshAccount(r.Dir, directory, email) })
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
	set := readShell(filepath.Join(folder, "ca.conf"), nil)
	return &Account{Directory: directory, URL: set["ACCOUNT_URL"], Email: cmp.Or(set["CA_EMAIL"], email), Key: key}, nil
}

// acmeshMethod is how a certificate's records were written. The settings, secrets among them, are in one file for all.
func acmeshMethod(name string, shared map[string]string, from string) Method {
	m := Method{Name: name, From: from}
	switch {
	case name == "no", name == "tls", name == "alpn":
		m = Method{Name: "standalone", HTTP: true}
	case strings.HasPrefix(name, "/"):
		m = Method{Name: "webroot", HTTP: true}
	case name == "nginx" || strings.HasPrefix(name, "nginx:"), name == "apache":
		m = Method{Name: "its mode for " + strings.TrimSuffix(name[:6], ":"), HTTP: true}
	}
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
