package providers

import (
	"fmt"
	"os/exec"
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
		{"comment signs inside strings", `key "acme-key" { algorithm "hmac-sha256"; secret "SECRET"; }; // "key"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseTSIGKey(strings.ReplaceAll(tt.text, "SECRET", testSecret))
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
		{"the secret alone", "SECRET\n", "line 1: the word key is expected"},
		{"include", "\ninclude \"/etc/bind/a.key\";", "line 2: include isn't followed; name the file that holds the key itself"},
		{"two keys", good + "\n" + good, "line 2: a second key; keep each key in a file of its own"},
		{"an include behind", good + "include \"x\";", "line 1: include isn't followed; keep only the key in this file"},
		{"something behind", good + "\n\nserver 192.0.2.1 { keys a; };", "line 3: something follows the key; keep only the key in this file"},
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
		{"a comment without end", "\n/* " + good, "line 2: a string or comment doesn't end"},
		{"the algorithm is wrong", `key "a" { algorithm hmac-md5; secret "SECRET"; };`,
			`the key's algorithm "hmac-md5" is broken and no longer used; make a new key for the server and for us: tsig-keygen -a hmac-sha256 KEYNAME`},
		{"algorithm and secret are exchanged", `key "a" { algorithm "SECRET"; secret "hmac-sha256"; };`,
			"the key's algorithm is unknown; known are hmac-sha256, hmac-sha512, hmac-sha384, hmac-sha224, hmac-sha1\n" +
				`the key's secret isn't base64; copy all that stands between the quotes after "secret" in tsig-keygen's output`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseTSIGKey(strings.ReplaceAll(tt.text, "SECRET", testSecret))
			if err == nil || err.Error() != tt.want {
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
		key, err := parseTSIGKey(string(text))
		if err != nil || key.name != "acme-key" || key.algorithm != algorithm || !strings.Contains(string(text), key.secret) {
			t.Errorf("%s: %v, from\n%s", algorithm, err, text)
		}
	}
}

// FuzzTSIGKey looks for inputs that crash the parser, that it reads otherwise than it writes them, or whose error shows
// the secret.
func FuzzTSIGKey(f *testing.F) {
	f.Add(`key "acme-key" { algorithm hmac-sha256; secret "`, `"; };`)
	f.Add("/* x */ key a { algorithm ", "; };")
	f.Add("", "")
	f.Add(`key "`, `" { algorithm hmac-sha1; secret "YQ=="; }; // x`)
	f.Fuzz(func(t *testing.T, before, after string) {
		key, err := parseTSIGKey(before + testSecret + after)
		if err != nil {
			if strings.Contains(strings.ToLower(err.Error()), strings.ToLower(testSecret)) {
				t.Errorf("the error shows the secret: %v", err)
			}
			return
		}
		again, err := parseTSIGKey(fmt.Sprintf("key %q { algorithm %s; secret %q; };", key.name, key.algorithm, key.secret))
		if err != nil || again != key {
			t.Errorf("%v was read again as %v, %v", key, again, err)
		}
	})
}
