package migrate

import (
	"cmp"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// certbot reads /etc/letsencrypt: renewal/NAME.conf says which account a certificate came from, live/NAME holds its files,
// and accounts/HOST/PATH/ID the account, where HOST/PATH is the directory URL.
func (r *reader) certbot() error {
	accounts := map[string]*Account{}
	if err := r.certbotAccounts(accounts); err != nil {
		return err
	}
	confs, err := filepath.Glob(filepath.Join(r.Dir, "renewal", "*.conf"))
	if err != nil {
		return err
	}
	r.Live = filepath.Join(r.Dir, "live", "{name}")
	if err := r.certbotHooks(); err != nil {
		return err
	}
	for _, conf := range confs {
		set := readConfigObj(conf)
		name := strings.TrimSuffix(filepath.Base(conf), ".conf")
		where := "renewal/" + filepath.Base(conf)
		for _, key := range []string{"pre_hook", "post_hook", "renew_hook", "deploy_hook"} {
			r.hook(key, where, set[key], name)
		}
		r.installer(where, set["installer"], name)
		live := filepath.Join(r.Dir, "live", name)
		c := r.add(name, filepath.Join(live, "privkey.pem"), filepath.Join(live, "fullchain.pem"))
		if c == nil {
			continue
		}
		c.Profile = cmp.Or(set["required_profile"], set["preferred_profile"])
		if directory, err := url.Parse(set["server"]); err == nil && filepath.IsLocal(set["account"]) {
			folder := filepath.Join(r.Dir, "accounts", directory.Host, filepath.FromSlash(directory.Path), set["account"])
			c.Account = r.account(folder, accounts, func() (*Account, error) { return certbotAccount(folder, set["server"]) })
		}
		if c.Account == nil && set["account"] == "" { // old versions had one account and didn't say
			c.Account = r.only()
		}
		if c.Account == nil {
			r.note(conf, "names no account that is there")
		}
		r.method(certbotMethod(set))
	}
	return nil
}

// certbotAccounts reads all accounts but those behind symbolic links, by which certbot lets two directories share one.
func (r *reader) certbotAccounts(known map[string]*Account) error {
	root := filepath.Join(r.Dir, "accounts")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "private_key.json" {
			return err
		}
		folder := filepath.Dir(path)
		if rel, err := filepath.Rel(root, filepath.Dir(folder)); err == nil {
			r.account(folder, known, func() (*Account, error) { return certbotAccount(folder, "https://"+filepath.ToSlash(rel)) })
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// certbotAccount reads the files of one account.
func certbotAccount(folder, directory string) (*Account, error) {
	var private jwk
	if err := readJSON(filepath.Join(folder, "private_key.json"), &private); err != nil {
		return nil, err
	}
	key, err := private.key()
	if err != nil {
		return nil, err
	}
	var registration struct {
		URI  string
		Body struct{ Contact []string }
	}
	// Without it the CA is asked by the key.
	if err := readJSON(filepath.Join(folder, "regr.json"), &registration); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &Account{Directory: directory, URL: registration.URI, Email: email(registration.Body.Contact), Key: key}, nil
}

// certbotMethod is how a certificate's records were written. A plugin keeps its settings, the secret among them, in a
// file of its own.
func certbotMethod(set map[string]string) Method {
	m := Method{Name: set["authenticator"]}
	switch m.Name {
	case "webroot", "standalone", "nginx", "apache":
		m.HTTP = true
	case "dns-rfc2136":
		m.From = set["dns_rfc2136_credentials"]
		own := readConfigObj(m.From)
		m.Server, m.KeyName, m.KeyAlg = own["dns_rfc2136_server"], own["dns_rfc2136_name"], own["dns_rfc2136_algorithm"]
		if port := own["dns_rfc2136_port"]; m.Server != "" && port != "" && port != "53" {
			m.Server = hostPort(m.Server, port)
		}
		m.Secret = "dns_rfc2136_secret"
	case "dns-cloudflare":
		m.From, m.Secret = set["dns_cloudflare_credentials"], "dns_cloudflare_api_token"
	case "manual":
		m.Program = program(set["manual_auth_hook"])
		m.HTTP = set["pref_challs"] == "http-01" || set["pref_challs"] == "http"
	default:
		m.From = set[strings.ReplaceAll(m.Name, "-", "_")+"_credentials"]
	}
	return m
}

// certbotHooks notes what runs for all certificates: the folders of hooks, and the options of cli.ini.
func (r *reader) certbotHooks() error {
	set := readIni(filepath.Join(r.Dir, "cli.ini"))
	for _, key := range []string{"pre-hook", "post-hook", "deploy-hook", "renew-hook"} {
		r.hook(key, "cli.ini", set[key])
	}
	installer := set["installer"]
	for _, name := range []string{"nginx", "apache"} {
		if set[name] != "" && set[name] != "false" {
			installer = name
		}
	}
	r.installer("cli.ini", installer)
	if off := set["no-directory-hooks"]; off != "" && off != "false" {
		return nil
	}
	for _, kind := range []string{"pre", "deploy", "post"} {
		files, err := filepath.Glob(filepath.Join(r.Dir, "renewal-hooks", kind, "*"))
		if err != nil {
			return err
		}
		for _, file := range files {
			// Certbot runs executable files, and leaves out what an editor has left.
			info, err := os.Stat(file)
			switch {
			case err == nil && !info.Mode().IsRegular(), strings.HasSuffix(file, "~"):
			case err == nil && info.Mode()&0o111 == 0:
				r.addHook(Hook{Kind: "renewal-hooks/" + kind, In: []string{filepath.Base(file)}, Whole: true, notes: "it never ran, since it isn't executable"})
			default:
				r.script("renewal-hooks/"+kind, file)
			}
		}
	}
	return nil
}

// installer notes a web server that certbot configured and reloaded by itself.
func (r *reader) installer(where, name string, certificates ...string) {
	h := Hook{
		Kind:    "installer",
		In:      []string{where},
		Command: name,
		For:     certificates,
		Whole:   true,
		notes:   "certbot wrote the paths of the files into its configuration, and reloaded it",
	}
	switch name {
	case "", "None":
		return
	case "nginx":
		h.Units = []string{"nginx.service"}
	case "apache":
		h.Units = []string{"apache2.service"}
		h.notes += "; on Red Hat it is httpd.service"
	default:
		h.Whole = false
	}
	r.addHook(h)
}
