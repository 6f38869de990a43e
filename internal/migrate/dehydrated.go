package migrate

import (
	"cmp"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"autocertd/internal/cure"
	"autocertd/internal/knownca"
)

// dehydrated reads its base folder: certs/NAME with the files, and accounts/ID, where ID is the directory URL in
// base64url. Which CA a certificate came from it doesn't keep: that is the one of its configuration.
func (r *reader) dehydrated() error {
	set := r.dehydratedConfig()
	folders, err := filepath.Glob(filepath.Join(cmp.Or(set["ACCOUNTDIR"], filepath.Join(r.Dir, "accounts")), "*"))
	if err != nil {
		return err
	}
	known := map[string]*Account{}
	for _, folder := range folders {
		r.account(folder, known, func() (*Account, error) { return dehydratedAccount(folder) })
	}
	issuer, err := r.dehydratedIssuer(set["CA"])
	if err != nil {
		return err
	}
	certificates := cmp.Or(set["CERTDIR"], filepath.Join(r.Dir, "certs"))
	r.Live = filepath.Join(certificates, "{name}")
	r.Roots = cacert(set["CURL_OPTS"])
	programs := []string{program(set["HOOK"])}
	// Without a setting it is http-01, or what its command line says.
	dns := set["CHALLENGETYPE"] == "dns-01" || set["CHALLENGETYPE"] == "" && set["HOOK"] != ""
	r.dehydratedHook("config", set["HOOK"])
	names, err := filepath.Glob(filepath.Join(certificates, "*"))
	if err != nil {
		return err
	}
	for _, folder := range names {
		name := filepath.Base(folder)
		config, where := filepath.Join(folder, "config"), "certs/"+name+"/config"
		if set["DOMAINS_D"] != "" {
			config = filepath.Join(set["DOMAINS_D"], name)
			where = config
		}
		own := readShell(config, set)
		dns = dns || own["CHALLENGETYPE"] == "dns-01"
		if own := own["HOOK"]; own != set["HOOK"] {
			r.dehydratedHook(where, own, name)
			if own = program(own); !slices.Contains(programs, own) {
				programs = append(programs, own)
			}
		}
		key := filepath.Join(folder, "privkey.pem")
		if _, err := os.Lstat(key); err != nil {
			continue
		}
		if c := r.add(name, key, filepath.Join(folder, "fullchain.pem")); c != nil {
			c.Account = issuer
		}
	}
	programs = slices.DeleteFunc(programs, func(p string) bool { return p == "" })
	if !dns {
		r.method(Method{Name: cmp.Or(set["CHALLENGETYPE"], "http-01"), HTTP: true})
		return nil
	}
	r.method(Method{Name: "its hook", Program: strings.Join(programs, " and ")})
	return nil
}

// dehydratedHook notes a hook, which writes records, and is also called for each new certificate.
func (r *reader) dehydratedHook(where, command string, certificates ...string) {
	before := len(r.Hooks)
	r.hook("HOOK", where, command, certificates...)
	if len(r.Hooks) > before { // what it does for a new certificate stands in its deploy_cert
		r.Hooks[before].Whole = false
		r.Hooks[before].notes = "see its deploy_cert"
	}
}

// dehydratedConfig reads its configuration, which lies in the base folder, or in /etc and names that.
func (r *reader) dehydratedConfig() map[string]string {
	known := map[string]string{"BASEDIR": filepath.Clean(r.Dir), "SCRIPTDIR": filepath.Clean(r.Dir)}
	file := filepath.Join(r.Dir, "config")
	if _, err := os.Lstat(file); err != nil {
		const debian = "/etc/dehydrated/config"
		if set := readShell(debian, nil); filepath.Clean(set["BASEDIR"]) == known["BASEDIR"] {
			file = debian
		}
	}
	set := readShell(file, known)
	more, _ := filepath.Glob(filepath.Join(cmp.Or(set["CONFIG_D"], "-"), "*.sh")) // the pattern is fine
	for _, file := range more {
		set = readShell(file, set)
	}
	return set
}

// cacert is the file of roots in options of curl.
func cacert(options string) string {
	words := strings.Fields(options)
	for i, word := range words {
		if file, ok := strings.CutPrefix(word, "--cacert="); ok {
			return file
		}
		if word == "--cacert" && i+1 < len(words) {
			return words[i+1]
		}
	}
	return ""
}

// dehydratedIssuer is the account in use.
func (r *reader) dehydratedIssuer(ca string) (*Account, error) {
	if len(r.Accounts) < 2 {
		return r.only(), nil
	}
	switch ca {
	case knownca.LetsEncrypt, knownca.ZeroSSL, knownca.Google:
		ca = knownca.Directory(ca)
	case "letsencrypt-test":
		ca = knownca.Directory(knownca.LetsEncryptStaging)
	}
	var all []string
	for _, a := range r.Accounts {
		if a.Directory == ca || slices.Contains(r.directories, a.Directory) {
			return a, nil
		}
		all = append(all, a.Directory)
	}
	return nil, cure.New(r.Dir+" has several accounts, and nothing says which CA is in use",
		"name one: --directory "+strings.Join(all, " or --directory "))
}

// dehydratedAccount reads the files of one account.
func dehydratedAccount(folder string) (*Account, error) {
	key, err := readKey(filepath.Join(folder, "account_key.pem"))
	if err != nil {
		return nil, err
	}
	directory, err := base64.RawURLEncoding.DecodeString(filepath.Base(folder))
	if err != nil {
		return nil, errors.New("isn't named after a CA")
	}
	var id struct{ URL string }
	var registration struct{ Contact []string }
	for file, into := range map[string]any{"account_id.json": &id, "registration_info.json": &registration} {
		// Without it the CA is asked by the key.
		if err := readJSON(filepath.Join(folder, file), into); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return &Account{Directory: strings.TrimSpace(string(directory)), URL: id.URL, Email: email(registration.Contact), Key: key}, nil
}
