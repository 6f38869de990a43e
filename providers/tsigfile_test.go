package providers

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseTSIGKey(t *testing.T) {
	want := tsigKey{"acme-key", "hmac-sha256", testSecret}
	tests := []struct{ name, text string }{
		{"as tsig-keygen prints it", "key \"acme-key\" {\n\talgorithm hmac-sha256;\n\tsecret \"SECRET\";\n};\n"},
		{"on one line, without blanks", `key"acme-key"{algorithm"hmac-sha256";secret"SECRET";};`},
		{"without quotes and the last semicolon", "key acme-key { secret SECRET; algorithm hmac-sha256; }"},
		{"every kind of comment", "// a\n# b\n/* c\n */ key /*d*/ acme-key// e\n{ algorithm hmac-sha256;# f\nsecret/* g */\"SECRET\"; };// h"},
		{"carriage returns and tabs", "key\t\"acme-key\" {\r\n\talgorithm hmac-sha256;\r\n\tsecret \"SECRET\";\r\n};\r\n"},
		{"a name in capitals with a dot", `key "Acme-KEY." { algorithm HMAC-SHA256; secret "SECRET"; };`},
		{"words in capitals", `KEY "acme-key" { ALGORITHM HMAC-SHA256; Secret "SECRET"; };`},
		{"a byte order mark", "\ufeffkey \"acme-key\" { algorithm hmac-sha256; secret \"SECRET\"; };"},
		{"a secret with a blank", `key "acme-key" { algorithm hmac-sha256; secret "FIRST SECOND"; };`},
		{"a secret on several lines", "key \"acme-key\" {\n\talgorithm hmac-sha256;\n\tsecret \"\n\t\tFIRST\r\n\t\tSECOND\n\t\";\n};\n"},
		{"one of several keys", `key "other" { algorithm hmac-sha1; secret "YQ=="; }; key "ACME-KEY." { algorithm hmac-sha256; secret "SECRET"; };`},
		{"as ddns-confgen prints it", "# To activate this key, place the following in named.conf\nkey \"acme-key\" {\n\talgorithm hmac-sha256;\n\tsecret \"SECRET\";\n};\n\n# Then, in the \"zone\" statement\n#\tupdate-policy { grant acme-key zonesub ANY; };\n"},
		{"comment signs inside strings", `key "acme-key" { algorithm "hmac-sha256"; secret "SECRET"; }; // "key"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := ""
			if strings.Contains(tt.text, "other") {
				name = "acme-key"
			}
			text := strings.NewReplacer("SECRET", testSecret, "FIRST", testSecret[:17], "SECOND", testSecret[17:]).Replace(tt.text)
			got, err := parseTSIGKey(text, name)
			if err != nil || got != want {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
}

func TestParseTSIGKeyMistakes(t *testing.T) {
	good := `key "a" { algorithm hmac-sha256; secret "SECRET"; };`
	tests := []struct{ name, text, want string }{
		{"empty", " \n# nothing\n", "there is no key in it; make one: tsig-keygen -a hmac-sha256 KEYNAME"},
		{"the secret alone", "SECRET\n", "line 1: the word key is expected; write it as BIND does: key \"NAME\" { algorithm hmac-sha256; secret \"SECRET\"; };"},
		{"the configuration of named", "\noptions { directory \"/var/cache/bind\"; };\n" + good, "line 2: it begins as named.conf does, and only keys belong into this file; " +
			"write ours alone into one: key \"NAME\" { algorithm hmac-sha256; secret \"SECRET\"; };"},
		{"include", "\ninclude \"/etc/bind/a.key\";", "line 2: include isn't followed; name the file that holds the key itself"},
		{"two keys", good + "\n" + good, "line 2: a second key; say which one is ours: key_name = \"NAME\""},
		{"an include behind", good + "include \"x\";", "line 1: include isn't followed; keep only keys in this file"},
		{"something behind", good + "\n\nserver 192.0.2.1 { keys a; };", "line 3: something follows the key; keep only keys in this file"},
		{"no name", `key { algorithm hmac-sha256; secret "SECRET"; };`, "line 1: the key's name is expected"},
		{"no braces", `key "a" algorithm hmac-sha256;`, "line 1: { is expected"},
		{"no algorithm", "key \"a\" {\n\tsecret \"SECRET\";\n};", "line 3: the key has no algorithm"},
		{"no secret", `key "a" { algorithm hmac-sha256; };`, "line 1: the key has no secret"},
		{"two secrets", `key "a" { secret "SECRET"; secret "SECRET"; };`, "line 1: a second secret in one key"},
		{"the word secret is missing", `key "a" { algorithm hmac-sha256; "SECRET"; };`, "line 1: algorithm, secret or } is expected"},
		{"a value is missing", `key "a" { algorithm; secret "SECRET"; };`, "line 1: the value of algorithm is expected"},
		{"a semicolon is missing", "key \"a\" {\n secret \"SECRET\"\n algorithm hmac-sha256; };", "line 3: ; after the value of secret is expected"},
		{"it ends too early", `key "a" { algorithm hmac-sha256; secret "SECRET"; `, "the file ends where algorithm, secret or } is expected"},
		{"a string without end", "key \"a\" { secret \"SECRET; };\n", "line 1: a string or comment doesn't end"},
		{"a string that ends in an escape", `key "a" { secret "SECRET\"; };`, "line 1: a string or comment doesn't end"},
		{"truncated signatures", `key "a" { algorithm hmac-sha256-128; secret "SECRET"; };`,
			`the key's algorithm "hmac-sha256-128" cuts signatures short, which isn't supported; for the server and for us: algorithm hmac-sha256;`},
		{"a comment without end", "\n/* " + good, "line 2: a string or comment doesn't end"},
		{"the algorithm is wrong", `key "a" { algorithm hmac-md5; secret "SECRET"; };`,
			`the key's algorithm "hmac-md5" is broken and no longer used; make a new key for the server and for us: tsig-keygen -a hmac-sha256 KEYNAME`},
		{"algorithm and secret are exchanged", `key "a" { algorithm "SECRET"; secret "hmac-sha256"; };`,
			"the key's algorithm is unknown; known are hmac-sha256, hmac-sha512, hmac-sha384, hmac-sha224, hmac-sha1\n" +
				`the key's secret isn't base64; copy all that stands between the quotes after "secret" in tsig-keygen's output`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseTSIGKey(strings.ReplaceAll(tt.text, "SECRET", testSecret), "")
			if err == nil || said(err) != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestParseRealTSIGKeygen(t *testing.T) {
	for _, algorithm := range tsigAlgorithms() {
		text, err := exec.Command("/usr/sbin/tsig-keygen", "-a", algorithm, "acme-key").Output()
		if err != nil {
			t.Fatalf("tsig-keygen: %v; install Debian's bind9", err)
		}
		key, err := parseTSIGKey(string(text), "")
		if err != nil || key.name != "acme-key" || key.algorithm != algorithm || !strings.Contains(string(text), key.secret) {
			t.Errorf("%s: %v, from\n%s", algorithm, err, text)
		}
	}
}

// Files that hold a key in another form are told by the form, and how to get at ours.
func TestForeignTSIGFiles(t *testing.T) {
	const write = `: key "NAME" { algorithm hmac-sha256; secret "SECRET"; };`
	tests := []struct{ name, file, text, want string }{
		{"a private key of dnssec-keygen", "Kacme-key.+163+00001.private", "Private-key-format: v1.3\nAlgorithm: 163 (HMAC_SHA256)\nKey: " + testSecret + "\nBits: AAA=\n",
			`it is the private half of a key pair by dnssec-keygen; write it as named.conf has it: awk '/^Key:/ {print "key \"acme-key\" { algorithm hmac-sha256; secret \"" $NF "\"; };"}' FILE > tsig.key (with the algorithm that the file names)`},
		{"a public key of dnssec-keygen", "Kacme-key.+163+00001.key", "acme-key. IN KEY 512 3 163 " + testSecret + "\n",
			"it is the public half of a key pair by dnssec-keygen, a KEY record; write it as named.conf has it" + write},
		{"NSD", "tsig.key", "key:\n    name: acme-key\n    algorithm: hmac-sha256\n    secret: \"" + testSecret + "\"\n",
			"it is written as NSD and Knot have it; write it as BIND does" + write},
		{"Knot's keymgr", "tsig.key", "# hmac-sha256:acme-key:" + testSecret + "\nkey:\n  - id: acme-key\n    algorithm: hmac-sha256\n    secret: " + testSecret + "\n",
			"it is written as NSD and Knot have it; write it as BIND does" + write},
		{"the argument of nsupdate", "tsig.key", "hmac-sha256:acme-key:" + testSecret + "\n",
			"it is a key as the command line of nsupdate and kdig has it; write it as BIND's files do" + write},
		{"the argument of old nsupdates", "tsig.key", "acme-key:" + testSecret,
			"it is a key as the command line of nsupdate and kdig has it; write it as BIND's files do" + write},
		{"pdnsutil", "tsig.key", "acme-key. hmac-sha256. " + testSecret + "\n", "it is a key as pdnsutil lists it; write it as BIND does" + write},
		{"UTF-16", "tsig.key", "\xff\xfek\x00e\x00y\x00", "it is written in UTF-16; make it UTF-8: iconv -f UTF-16 -t UTF-8 FILE > tsig.key"},
		{"something else", "tsig.key", "secret\n", "line 1: the word key is expected; write it as BIND does: key \"NAME\" { algorithm hmac-sha256; secret \"SECRET\"; };"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.file)
			writeFile(t, path, tt.text, 0o600)
			_, err := readTSIGKey(path, "")
			if want := path + ": " + strings.ReplaceAll(tt.want, "FILE", path); err == nil || said(err) != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// What is read here is what named reads: each good form above signs an update.
func TestTSIGFilesAsBINDReadsThem(t *testing.T) {
	forms := []string{
		`KEY "acme-key" { ALGORITHM hmac-sha256; SECRET "FIRST SECOND"; };`,
		"key \"acme-key\" {\n\talgorithm \"HMAC-SHA256\";\n\tsecret \"FIRST\n\t\tSECOND\";\n};\n",
	}
	for _, form := range forms {
		path := filepath.Join(t.TempDir(), "named.conf")
		writeFile(t, path, strings.NewReplacer("FIRST", testSecret[:17], "SECOND", testSecret[17:]).Replace(form), 0o600)
		if out, err := exec.Command("named-checkconf", path).CombinedOutput(); err != nil {
			t.Errorf("named doesn't read it: %v: %s\n%s", err, out, form)
		}
		if key, err := readTSIGKey(path, ""); err != nil || key.secret != testSecret {
			t.Errorf("it isn't read: %v\n%s", err, form)
		}
	}
}

// FuzzTSIGKey looks for inputs that crash the parser, that it reads otherwise than it writes them, or whose error shows
// the secret. Blanks in a secret change nothing.
func FuzzTSIGKey(f *testing.F) {
	f.Add(`key "acme-key" { algorithm hmac-sha256; secret "`, "", `"; };`)
	f.Add("/* x */ key a { algorithm ", "", "; };")
	f.Add("", "", "")
	f.Add(`key "`, "", `" { algorithm hmac-sha1; secret "YQ=="; }; // x`)
	f.Add("\ufeffKEY a { Algorithm hmac-sha512; SECRET \"", " \n\t", "\"; }; key b { algorithm hmac-sha1; secret YQ==; };")
	f.Add("key:\n  - id: a\n    secret: ", "", "\n")
	f.Add("hmac-sha256:a:", " ", "")
	f.Fuzz(func(t *testing.T, before, blank, after string) {
		blank = strings.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n", r) {
				return r
			}
			return -1
		}, blank)
		text := before + testSecret[:8] + blank + testSecret[8:] + after
		said := foreignForm(text, "tsig.key")
		for _, name := range []string{"", "a"} {
			key, err := parseTSIGKey(text, name)
			if err != nil {
				said += err.Error()
				continue
			}
			again, err := parseTSIGKey(fmt.Sprintf("key %q { algorithm %s; secret %q; };", key.name, key.algorithm, key.secret), "")
			if err != nil || again != key {
				t.Errorf("%v was read again as %v, %v", key, again, err)
			}
		}
		for _, part := range []string{testSecret[:8], testSecret[8:]} {
			if strings.Contains(strings.ToLower(said), strings.ToLower(part)) {
				t.Errorf("the error shows the secret: %s", said)
			}
		}
	})
}
