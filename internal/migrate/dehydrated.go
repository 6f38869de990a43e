package migrate

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// dehydrated reads its base folder: certs/NAME with the files, and accounts/ID, where ID is the directory URL in
// base64url. Which CA a certificate came from it doesn't keep: that is the one of its configuration.
func (r *reader) dehydrated() error {
	folders, err := filepath.Glob(filepath.Join(r.Dir, "accounts", "*"))
	if err != nil {
		return err
	}
	known := map[string]*Account{}
	for _, folder := range folders {
		r.account(folder, known, func() (*Account, error) { return dehydratedAccount(folder) })
	}
	set := readSettings(filepath.Join(r.Dir, "config"))
	issuer, err := r.dehydratedIssuer(set["CA"])
	if err != nil {
		return err
	}
	keys, err := filepath.Glob(filepath.Join(r.Dir, "certs", "*", "privkey.pem"))
	if err != nil {
		return err
	}
	r.Live = filepath.Join(r.Dir, "certs", "{name}")
	for _, key := range keys {
		folder := filepath.Dir(key)
		if c := r.add(filepath.Base(folder), key, filepath.Join(folder, "fullchain.pem")); c != nil {
			c.Account = issuer
		}
	}
	r.method(Method{Name: "its hook", Program: program(set["HOOK"])})
	return nil
}

// dehydratedIssuer is the account in use.
func (r *reader) dehydratedIssuer(ca string) (*Account, error) {
	if len(r.Accounts) < 2 {
		return r.only(), nil
	}
	presets := map[string]string{"": "", "letsencrypt": letsEncrypt, "letsencrypt-test": letsEncryptStaging, "zerossl": zeroSSL, "google": googleCA}
	if preset, ok := presets[ca]; ok {
		ca = preset
	}
	var all []string
	for _, a := range r.Accounts {
		if a.Directory == ca || slices.Contains(r.directories, a.Directory) {
			return a, nil
		}
		all = append(all, a.Directory)
	}
	return nil, fmt.Errorf("%s has several accounts, and nothing says which CA is in use; name one: --directory %s",
		r.Dir, strings.Join(all, " or --directory "))
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
