package migrate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/knownca"
)

const (
	testDirectory = "https://ca.example.test/dir"
	secretText    = "not-for-anybodys-eyes"
)

// wanted is a certificate that a tree holds.
type wanted struct {
	name, keyType string
	hostnames     []string
}

func TestRead(t *testing.T) {
	tests := []struct {
		client, dir string
		url, email  string
		rsaAccount  bool
		want        []wanted
	}{
		{client: "certbot", dir: "testdata/certbot", url: "https://ca.example.test/my-account/57b86899432aa42c", rsaAccount: true, want: []wanted{
			{"certbot.example.test", "ecdsa-p256", []string{"certbot.example.test"}},
			{"multi", "rsa-2048", []string{"*.certbot2.example.test", "certbot2.example.test"}},
		}},
		{client: "lego", dir: "testdata/lego", url: "https://ca.example.test/my-account/28c5a2a97b09ada1", email: "ssl@example.test", want: []wanted{
			{"_.lego2.example.test", "ecdsa-p256", []string{"*.lego2.example.test", "lego2.example.test"}},
			{"lego.example.test", "ecdsa-p256", []string{"lego.example.test"}},
		}},
		{client: "dehydrated", dir: "testdata/dehydrated", url: "https://ca.example.test/my-account/2fdacf100d4fe284", email: "ssl@example.test", rsaAccount: true, want: []wanted{
			{"dehydrated.example.test", "ecdsa-p384", []string{"dehydrated.example.test"}},
			{"star", "ecdsa-p384", []string{"*.dehydrated2.example.test", "dehydrated2.example.test"}},
		}},
		{client: "acme.sh", dir: acmeshTree(t), url: "https://ca.example.test/my-account/1234", email: "ssl@example.test", rsaAccount: true, want: []wanted{
			{"_.dehydrated2.example.test", "ecdsa-p384", []string{"*.dehydrated2.example.test", "dehydrated2.example.test"}},
			{"dehydrated.example.test", "ecdsa-p384", []string{"dehydrated.example.test"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.client, func(t *testing.T) {
			tree, err := Read(tt.client, tt.dir, Options{Directories: []string{testDirectory}})
			if err != nil {
				t.Fatal(err)
			}
			if len(tree.Notes) > 0 {
				t.Errorf("notes: %q", tree.Notes)
			}
			if len(tree.Accounts) != 1 {
				t.Fatalf("%d accounts", len(tree.Accounts))
			}
			a := tree.Accounts[0]
			if a.CA != "ca-example-test" || a.Directory != testDirectory || a.URL != tt.url || a.Email != tt.email {
				t.Errorf("account %+v", a)
			}
			if _, isRSA := a.Key.(*rsa.PrivateKey); isRSA != tt.rsaAccount {
				t.Errorf("the account's key is a %T", a.Key)
			}
			sameCertificates(t, tree, tt.want)
		})
	}
}

func sameCertificates(t *testing.T, tree *Tree, want []wanted) {
	t.Helper()
	if len(tree.Certificates) != len(want) {
		t.Fatalf("%d certificates, want %d", len(tree.Certificates), len(want))
	}
	for i, c := range tree.Certificates {
		slices.Sort(c.Hostnames)
		if w := want[i]; c.Name != w.name || c.KeyType != w.keyType || !slices.Equal(c.Hostnames, w.hostnames) {
			t.Errorf("certificate %s: %s %q, want %v", c.Name, c.KeyType, c.Hostnames, w)
		}
		if c.Account != tree.Accounts[0] || len(c.Chain) != 2 {
			t.Errorf("certificate %s: account %v, chain of %d", c.Name, c.Account, len(c.Chain))
		}
	}
}

// acmeshTree lays the files of the tree of dehydrated out as acme.sh does.
func acmeshTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	wrapped := wrapBegin + base64.StdEncoding.EncodeToString([]byte("systemctl reload nginx --token="+secretText)) + wrapEnd
	accounts, err := filepath.Glob("testdata/dehydrated/accounts/*/account_key.pem")
	if err != nil || len(accounts) != 1 {
		t.Fatal(accounts, err)
	}
	const one, star = "testdata/dehydrated/certs/dehydrated.example.test/", "testdata/dehydrated/certs/star/"
	files := map[string]string{
		"ca/ca.example.test/dir/account.key": read(t, accounts[0]),
		"ca/ca.example.test/dir/ca.conf":     "ACCOUNT_URL='https://ca.example.test/my-account/1234'\nCA_EMAIL='ssl@example.test'\n",
		"account.conf": "#LOG_FILE=\"/var/log/acme.sh.log\"\nACCOUNT_EMAIL='other@example.test'\nSAVED_NSUPDATE_SERVER='ns1.example.test'\n" +
			"SAVED_NSUPDATE_SERVER_PORT='5353'\nSAVED_NSUPDATE_KEY='/etc/acme/tsig.key'\nSAVED_CF_Token='" + secretText + "'\n",
		"dehydrated.example.test_ecc/dehydrated.example.test.conf": "Le_Domain='dehydrated.example.test'\nLe_Alt='no'\nLe_Webroot='dns_nsupdate'\n" +
			"Le_API='" + testDirectory + "'\nLe_Keylength='ec-384'\nLe_ReloadCmd='" + wrapped + "'\n",
		"dehydrated.example.test_ecc/dehydrated.example.test.key":        read(t, one+"privkey.pem"),
		"dehydrated.example.test_ecc/dehydrated.example.test.cer":        read(t, one+"cert.pem"),
		"dehydrated.example.test_ecc/ca.cer":                             read(t, one+"chain.pem"),
		"*.dehydrated2.example.test_ecc/*.dehydrated2.example.test.conf": "Le_Domain='*.dehydrated2.example.test'\nLe_Alt='dehydrated2.example.test'\nLe_Webroot='dns_cf'\nLe_API='" + testDirectory + "'\n",
		"*.dehydrated2.example.test_ecc/*.dehydrated2.example.test.key":  read(t, star+"privkey.pem"),
		"*.dehydrated2.example.test_ecc/fullchain.cer":                   read(t, star+"fullchain.pem"),
		"deploy/ssh.sh": "#!/bin/sh\n",
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReadDamaged spoils one thing in a real tree: it is named, and the rest is taken over.
func TestReadDamaged(t *testing.T) {
	tests := []struct {
		name, client string
		spoil        func(t *testing.T, dir string)
		note         string // of the notes, or of the error
		certificates int    // with an account
	}{
		{"a key that isn't there", "certbot", remove("archive/multi/privkey1.pem"), "no such file", 1},
		{"a key of another certificate", "dehydrated", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "certs/star/privkey.pem"), read(t, filepath.Join(dir, "certs/dehydrated.example.test/privkey.pem")))
		}, "certs/star/privkey.pem: doesn't belong to the certificate beside it", 1},
		{"an empty key", "lego", overwrite("certificates/lego.example.test.key", ""), "lego.example.test.key: holds no private key in PEM", 1},
		{"a broken certificate", "dehydrated", overwrite("certs/star/fullchain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "the certificate beside it is broken", 1},
		{"no certificate at all", "dehydrated", remove("certs/star/fullchain.pem"), "has no certificate beside it", 1},
		{"an account key that isn't JSON", "certbot", overwrite("accounts/ca.example.test/dir/32e6cedbe40239cda81ff0837ac29009/private_key.json", `{"n": "`+secretText),
			"private_key.json isn't the JSON that is expected there", 0},
		{"an account key of zeros", "certbot", overwrite("accounts/ca.example.test/dir/32e6cedbe40239cda81ff0837ac29009/private_key.json", `{"kty":"RSA","n":"AA","e":"AQAB","d":"AA","p":"AA","q":"AA"}`),
			"holds a private key that can't be used", 0},
		{"no account", "certbot", remove("accounts"), "names no account that is there", 0},
		{"an account that is of no use", "certbot", func(t *testing.T, dir string) {
			accounts := filepath.Join(dir, "accounts")
			if err := os.CopyFS(filepath.Join(accounts, "staging.example.test"), os.DirFS(filepath.Join(accounts, "ca.example.test"))); err != nil {
				t.Fatal(err)
			}
		}, "https://staging.example.test/dir: the account there isn't taken over", 2},
		{"a second account at the host", "lego", func(t *testing.T, dir string) {
			host := filepath.Join(dir, "accounts/ca.example.test")
			write(t, filepath.Join(host, "new@example.test/account.json"), `{"email":"new@example.test"}`)
			write(t, filepath.Join(host, "new@example.test/keys/new@example.test.key"), read(t, filepath.Join(host, "ssl@example.test/keys/ssl@example.test.key")))
			if err := os.Chtimes(filepath.Join(host, "ssl@example.test/account.json"), time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		}, "new@example.test: is taken for the account of all certificates from ca.example.test", 2},
		{"an old version that names no account", "certbot", func(t *testing.T, dir string) {
			conf := filepath.Join(dir, "renewal/multi.conf")
			write(t, conf, strings.Replace(read(t, conf), "account = ", "# account = ", 1))
		}, "", 2},
		{"an account without its URL", "lego", overwrite("accounts/ca.example.test/ssl@example.test/account.json", `{"email":"ssl@example.test","registration":null}`), "", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", tt.client))); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, dir)
			tree, err := Read(tt.client, dir, Options{Directories: []string{testDirectory}})
			if err != nil {
				t.Fatal(err)
			}
			said, usable := strings.Join(tree.Notes, "\n"), 0
			for _, c := range tree.Certificates {
				if c.Account != nil {
					usable++
				}
			}
			if usable != tt.certificates || !strings.Contains(said, tt.note) || strings.Contains(said, secretText) {
				t.Errorf("%d certificates, want %d; notes:\n%s\nwant %q", usable, tt.certificates, said, tt.note)
			}
		})
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func overwrite(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, filepath.Join(dir, name), text) }
}

// TestReadNothing has folders of which nothing can be used at all.
func TestReadNothing(t *testing.T) {
	other := t.TempDir()
	write(t, filepath.Join(other, "README"), "nothing here")
	two := t.TempDir()
	if err := os.CopyFS(two, os.DirFS("testdata/dehydrated")); err != nil {
		t.Fatal(err)
	}
	accounts, _ := filepath.Glob(filepath.Join(two, "accounts", "*"))
	write(t, filepath.Join(two, "accounts", base64.RawURLEncoding.EncodeToString([]byte(knownca.Directory(knownca.LetsEncrypt))), "account_key.pem"), read(t, filepath.Join(accounts[0], "account_key.pem")))
	write(t, filepath.Join(two, "config"), `CA="$OTHER"`)
	tests := []struct{ name, client, dir, want string }{
		{"no folder", "lego", filepath.Join(other, "gone"), "no such file"},
		{"an empty folder", "lego", t.TempDir(), "is empty"},
		{"another client's folder", "dehydrated", "testdata/lego", "holds no account and no certificate of dehydrated"},
		{"somebody's folder", "acme.sh", other, "holds no account and no certificate of acme.sh"},
		{"a client that isn't known", "caddy", other, "certbot, lego, acme.sh, dehydrated"},
		{"a CA of which lego keeps the host", "lego", "testdata/lego", "--directory https://ca.example.test/…"},
		{"two accounts", "dehydrated", two, "name one: --directory https://"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Read(tt.client, tt.dir, Options{}); err == nil || !strings.Contains(err.Error()+"; "+cure.Of(err), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestReadLego5 has the layout of lego's version 5, which keeps the directory and has the key beside the account.
func TestReadLego5(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/lego")); err != nil {
		t.Fatal(err)
	}
	account := filepath.Join(dir, "accounts/ca.example.test/ssl@example.test")
	if err := os.Rename(filepath.Join(account, "keys/ssl@example.test.key"), filepath.Join(account, "ssl@example.test.key")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(account, "account.json"), `{"id": "ssl@example.test", "email": "ssl@example.test", "keyType": "EC256", "server": "`+testDirectory+
		`", "registration": {"status": "valid", "accountURL": "https://ca.example.test/my-account/5"}}`)
	tree, err := Read("lego", dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := tree.Accounts[0]
	if a.Directory != testDirectory || a.URL != "https://ca.example.test/my-account/5" || tree.uses(a) != 2 {
		t.Errorf("account %s at %s with %d certificates; notes %q", a.URL, a.Directory, tree.uses(a), tree.Notes)
	}
}

// TestAccountKey reads what certbot doesn't write by default: an EC key (RFC 7517 appendix A.2).
func TestAccountKey(t *testing.T) {
	var private jwk
	text := `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}`
	if err := json.Unmarshal([]byte(text), &private); err != nil {
		t.Fatal(err)
	}
	key, err := private.key()
	if err != nil {
		t.Fatal(err)
	}
	public, ok := key.Public().(*ecdsa.PublicKey)
	if raw, err := public.Bytes(); !ok || err != nil || !bytes.Equal(raw[1:], slices.Concat(private.X, private.Y)) {
		t.Errorf("the public key is %v (%v)", public, err)
	}
}

// FuzzAccountKey reads account keys of certbot, and settings, that are anything: no input may do more than fail.
func FuzzAccountKey(f *testing.F) {
	file := "testdata/certbot/accounts/ca.example.test/dir/32e6cedbe40239cda81ff0837ac29009/private_key.json"
	seed, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(seed))
	f.Add(`{"kty":"EC","crv":"P-256","d":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`)
	f.Add(`{"kty":"RSA","n":"AQ","e":"AQ","d":"AQ","p":"AQ","q":"AQ"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var private jwk
		if json.Unmarshal([]byte(text), &private) != nil {
			return
		}
		if key, err := private.key(); err == nil {
			if _, err := encodeKey(key); err != nil {
				t.Errorf("a key that is taken can't be saved: %v", err)
			}
		} else if strings.Contains(err.Error(), text) {
			t.Error("the error holds the key")
		}
	})
}
