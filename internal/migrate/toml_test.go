package migrate

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/config"
	"autocertd/internal/knownca"
)

// TestTOML writes what trees mean, loads it together with what an administrator adds, and wants the certificates that the
// trees hold: a difference would have them ordered anew.
func TestTOML(t *testing.T) {
	tests := []struct {
		name, client, dir string
		existing          string // the main file
		shows             []string
		hides             []string
	}{
		{"certbot, with nothing there", "certbot", "testdata/certbot", provider,
			[]string{"accept_terms = true", `key_type  = "rsa-2048"`, "manual, by /usr/local/lib/hook.\n"}, []string{"[defaults]", "email"}},
		{"most keys of one type", "dehydrated", "testdata/dehydrated", provider,
			[]string{"[defaults]\nkey_type = \"ecdsa-p384\"", `email        = "ssl@example.test"`, "its hook, by /usr/local/lib/hook.\n"}, nil},
		{"wildcards keep their name", "acme.sh", acmeshTree(t), provider,
			[]string{`name      = "_.dehydrated2.example.test"`, `#server   = "ns1.example.test:5353"`, `#key_file = "/etc/acme/tsig.key"`, "#[provider.cloudflare]", "#   Le_ReloadCmd in dehydrated.example.test_ecc/dehydrated.example.test.conf: systemctl reload nginx --token=…  (left out)\n"}, nil},
		{"lego keeps no settings", "lego", "testdata/lego", provider, []string{`type     = "rfc2136"`}, nil},
		{"the CA is configured", "lego", "testdata/lego", provider + "[ca.home]\naccept_terms = true\ndirectory = \"" + testDirectory + "\"\n",
			[]string{"hostnames = [\n  \"lego.example.test\",\n]"}, []string{"[ca.", "[provider", "[defaults]"}},
		{"other keys are the default", "lego", "testdata/lego", "hostnames = [\"rsa.example.test\"]\n" + provider + "[defaults]\nkey_type = \"rsa-2048\"\n[ca.home]\naccept_terms = true\ndirectory = \"" + testDirectory + "\"\n",
			[]string{`key_type  = "ecdsa-p256"`}, []string{"hostnames = [\n"}},
		{"another CA is configured", "dehydrated", "testdata/dehydrated", provider + "[defaults]\nca = [\"letsencrypt\"]\n[ca.letsencrypt]\naccept_terms = true\ndirectory = \"letsencrypt\"\n",
			[]string{`ca        = ["ca-example-test"]`, "[ca.ca-example-test]"}, []string{"[defaults]"}},
		{"some certificates are configured", "lego", "testdata/lego", "hostnames = [\"lego.example.test\"]\n" + provider + "[ca.home]\naccept_terms = true\ndirectory = \"" + testDirectory + "\"\n",
			[]string{`name      = "_.lego2.example.test"`}, []string{"\"lego.example.test\","}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			main := filepath.Join(dir, "config.toml")
			write(t, main, tt.existing)
			known, names := knownOf(main)
			tree, err := Read(tt.client, tt.dir, Options{Directories: []string{testDirectory}, Names: names})
			if err != nil {
				t.Fatal(err)
			}
			text := tree.TOML(known)
			for _, part := range tt.shows {
				if !strings.Contains(text, part) {
					t.Errorf("doesn't say %q:\n%s", part, text)
				}
			}
			for _, part := range append(tt.hides, secretText) {
				if strings.Contains(text, part) {
					t.Errorf("says %q:\n%s", part, text)
				}
			}
			write(t, filepath.Join(dir, "conf.d", "imported.toml"), text)
			cfg, err := config.Load(main, config.Checks{})
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			sameWishes(t, tree, cfg)
		})
	}
}

const provider = "[provider.own]\ntype = \"rfc2136\"\n"

// knownOf is what the command takes from a configuration, nothing when that can't be loaded.
func knownOf(path string) (known Known, names map[string]string) {
	cfg, err := config.Load(path, config.Checks{})
	if err != nil {
		return known, nil
	}
	names = map[string]string{}
	known.Providers = len(cfg.Providers)
	for _, ca := range cfg.CAs {
		known.CAs, names[ca.Directory] = append(known.CAs, ca.Name), ca.Name
	}
	for _, c := range cfg.Certificates {
		known.Names, known.KeyTypes = append(known.Names, c.Name), append(known.KeyTypes, c.KeyType)
	}
	return known, names
}

// sameWishes wants the configuration to ask for each certificate as it is.
func sameWishes(t *testing.T, tree *Tree, cfg *config.Config) {
	t.Helper()
	for _, c := range tree.Certificates {
		i := slices.IndexFunc(cfg.Certificates, func(w config.Certificate) bool { return w.Name == c.Name })
		if i < 0 {
			t.Errorf("%s isn't configured", c.Name)
			continue
		}
		w := cfg.Certificates[i]
		have, want := slices.Sorted(slices.Values(c.Hostnames)), slices.Sorted(slices.Values(w.Hostnames))
		if !slices.Equal(have, want) || w.KeyType != c.KeyType || !slices.Equal(w.CAs, []string{c.Account.CA}) {
			t.Errorf("configured is %+v, but it is for %v with %s from %s", w, have, c.KeyType, c.Account.CA)
		}
	}
	for _, ca := range cfg.CAs {
		for _, a := range tree.Accounts {
			if ca.Name == a.CA && ca.Directory != a.Directory {
				t.Errorf("CA %s is at %s, but the account is at %s", ca.Name, ca.Directory, a.Directory)
			}
		}
	}
}

// TestMethodCertbot reads the settings of certbot's plugins, without their secrets.
func TestMethodCertbot(t *testing.T) {
	ini := filepath.Join(t.TempDir(), "rfc2136.ini")
	write(t, ini, "# TSIG\ndns_rfc2136_server = 192.0.2.53\ndns_rfc2136_port = 5353\ndns_rfc2136_name = Acme-Key.\ndns_rfc2136_secret = "+secretText+
		"\ndns_rfc2136_algorithm = HMAC-SHA512\n")
	tests := []struct {
		name string
		set  map[string]string
		want []string
	}{
		{"its plugin for BIND", map[string]string{"authenticator": "dns-rfc2136", "dns_rfc2136_credentials": ini},
			[]string{`#server   = "192.0.2.53:5353"`, `#key_name = "acme-key"`, `#key_alg  = "hmac-sha512"`, "dns_rfc2136_secret", ini}},
		{"the same, whose file is gone", map[string]string{"authenticator": "dns-rfc2136", "dns_rfc2136_credentials": "/gone.ini"}, []string{`#server   = ""`, "/gone.ini"}},
		{"its plugin for Cloudflare", map[string]string{"authenticator": "dns-cloudflare", "dns_cloudflare_credentials": "/etc/cf.ini"}, []string{"#[provider.cloudflare]", "/etc/cf.ini"}},
		{"one that isn't known", map[string]string{"authenticator": "dns-route53"}, []string{"dns-route53", "docs/providers.md"}},
		{"a line break in a name", map[string]string{"authenticator": "dns-a\nb = 1"}, []string{"dns-a b = 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := certbotMethod(tt.set).stanza()
			for _, part := range tt.want {
				if !strings.Contains(text, part) {
					t.Errorf("doesn't say %q:\n%s", part, text)
				}
			}
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(line, "#") || strings.Contains(line, secretText) {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}

// TestNames gives every account a CA and every certificate a name of its own.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/lego")); err != nil {
		t.Fatal(err)
	}
	tree, err := Read("lego", dir, Options{Directories: []string{testDirectory}})
	if err != nil {
		t.Fatal(err)
	}
	second := *tree.Accounts[0]
	tree.Accounts = append(tree.Accounts, &second)
	tree.Certificates[0].Account, tree.Certificates[0].Name = &second, "lego.example.test_ecc"
	r := &reader{Tree: tree}
	r.nameCAs(map[string]string{testDirectory: "home", knownca.Directory(knownca.LetsEncrypt): "home-2"})
	r.nameCertificates()
	if a, b := tree.Accounts[0].CA, tree.Accounts[1].CA; a != "home" || b != "home-3" {
		t.Errorf("the CAs are %q and %q", a, b)
	}
	if a, b := tree.Certificates[0].Name, tree.Certificates[1].Name; a != "lego.example.test_ecc" || b != "lego.example.test" {
		t.Errorf("the certificates are %q and %q", a, b)
	}
	for name, want := range map[string]string{"*.example.test": "_.example.test", "bücher": "b-cher", "..": "imported", "a/b": "a-b"} {
		if got := usable(name); got != want {
			t.Errorf("%q is called %q, want %q", name, got, want)
		}
	}
}
