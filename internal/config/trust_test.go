package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// loadSite loads a sound configuration with the text in front and the tables at the end.
func loadSite(t *testing.T, text, tables string, files ...txtar.File) (*Config, error) {
	t.Helper()
	text = "hostnames = [\"www.corp.example.com\", \"state\"]\n" + text + minimal + tables
	unpack(t, &txtar.Archive{Files: append(files, txtar.File{Name: "config.toml", Data: []byte(text)})})
	return Load("config.toml", checks())
}

// TestEABKeys: a CA's key is taken in every form in which one is handed out, and what goes on to the CA is base64url.
func TestEABKeys(t *testing.T) {
	key := "yMnKy8zNzs_Q0dLT1NXW19jZ2tvc3d7f4OHi4-Tl5uc" // 32 bytes
	long := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("\xfb\xff", 32)))
	hex := base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("0123456789abcdef", 4)))
	tests := []struct{ what, written, want string }{
		{"as the RFC has it", key, key},
		{"padded", key + "=", key},
		{"padded too much", key + "==", key},
		{"standard base64", "yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5uc=", key},
		{"both alphabets", "yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4-Tl5uc", key},
		{"a line end inside", key[:20] + "\n" + key[20:], key},
		{"wrapped by Windows", key[:20] + "\r\n" + key[20:] + "\r\n", key},
		{"blanks around and inside", "  " + key[:4] + " " + key[4:] + "\t", key},
		{"a byte order mark in front", "\uFEFF" + key, key},
		{"bits left over at its end", key[:len(key)-1] + "d", key},
		{"64 bytes on lines", long[:64] + "\n" + long[64:] + "==", long},
		{"a short one", "aHVudGVyMg==", "aHVudGVyMg"},
		{"hex digits that a CA chose as its key", hex, hex},
	}
	for _, tt := range tests {
		c, err := loadSite(t, "defaults.ca = [\"le\"]\n", "[ca.own]\ndirectory = \"https://ca.corp.example.com/dir\"\naccept_terms = true\n"+
			"eab = { kid = \" k\\n\", hmac_key = { file = \"eab\" } }\n", txtar.File{Name: "eab", Data: []byte(tt.written)})
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if got := c.CAs[1].EAB.HMACKey.Reveal(); got != tt.want {
			t.Errorf("%s: the CA gets %q", tt.what, got)
		}
		if got := c.CAs[1].EAB.KeyID; got != "k" {
			t.Errorf("%s: the CA gets the identifier %q", tt.what, got)
		}
	}
}

// TestByteOrderMarks puts one in front of every file that a configuration reads.
func TestByteOrderMarks(t *testing.T) {
	root, csr := fileOf(t, "private-names", "ca.pem"), fileOf(t, "csr", "good.csr")
	files := []txtar.File{{Name: "config.toml", Data: []byte(minimal + "hostnames = [\"www.corp.example.com\"]\n[defaults]\nca = [\"le\"]\n")},
		{Name: "conf.d/own.toml", Data: []byte("[ca.own]\ndirectory = \"https://ca.corp.example.com/dir\"\naccept_terms = true\nroots = [\"../ca.pem\"]\n" +
			"eab = { kid = \"k\", hmac_key = { file = \"../eab\" } }\n[[certificate]]\nname = \"appliance\"\ncsr = \"../good.csr\"\n")},
		{Name: "eab", Data: []byte("aHVudGVyMg==\n")}, root, csr}
	for i := range files {
		files[i].Data = append([]byte("\uFEFF"), files[i].Data...)
	}
	unpack(t, &txtar.Archive{Files: files})
	c, err := Load("config.toml", checks())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.CAs[1].Roots) != 1 || c.CAs[1].EAB.HMACKey.Reveal() != "aHVudGVyMg" || len(c.Certificates) != 2 {
		t.Errorf("got %+v", c)
	}
}

// TestOutputsInTheStateDirectory: none is taken, in whichever way it leads there.
func TestOutputsInTheStateDirectory(t *testing.T) {
	root := t.TempDir()
	state := filepath.Join(root, "state")
	for _, folder := range []string{"state/bundles", "etc/ssl", "srv"} {
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"etc/there": "../state", "etc/chain": "there/bundles", "etc/ssl/www.corp.example.com": state,
		"srv/state": state, "other": "nowhere", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	const in, leads = "is in the state directory", "leads into the state directory"
	tests := []struct{ state, dir, file, want string }{
		{state, root + "/etc/{name}", "", ""},
		{state, root + "/state-of-others/{name}", "", ""},
		{state, root + "/other/{name}", "", ""},
		{state, root + "/loop/{name}", "", ""},
		{state, state, "{name}.json", in},
		{state, state + "/bundles", "{name}.json", in},
		{state, state + "/live/{name}", "", in},
		{state, state + "/new/deep/{name}", "", in},
		{state, root + "/etc/../state/{name}", "", in},
		{state, root + "/./state//x", "{name}.pem", in},
		{state, root + "/{name}", "", in}, // for the certificate "state"
		{state, root + "/etc/there/{name}", "", leads},
		{state, root + "/etc/chain", "{name}.json", leads},
		{state, root + "/etc/ssl/{name}", "", leads},
		{root + "/srv/state", root + "/state/{name}", "", leads},
		{root + "/srv/state/", root + "/srv/state/x/{name}", "", in},
	}
	for _, tt := range tests {
		table := fmt.Sprintf("[[output]]\ndir = %q\n", tt.dir)
		if tt.file != "" {
			table += fmt.Sprintf("format = \"combined\"\nfile = %q\n", tt.file)
		}
		_, err := loadSite(t, fmt.Sprintf("state_dir = %q\n", tt.state), table)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), ": output.dir: ") || !strings.Contains(told(err), tt.want)) {
			t.Errorf("%s in %s: got %v, want %q", tt.dir, tt.state, err, tt.want)
		}
	}
}

// TestManyMistakes: the first hundred are said, with the number of the others.
func TestManyMistakes(t *testing.T) {
	const count = 100_000
	_, err := loadSite(t, "", "[defaults]\n"+strings.Repeat("\n", 10), txtar.File{Name: "conf.d/many.toml",
		Data: []byte("hostnames = [" + strings.Repeat("\"-\",\n", count) + "]\n")})
	problems, ok := errors.AsType[Problems](err)
	if !ok || len(problems) != maxProblems+1 || problems.Count() != count {
		t.Fatalf("got %d problems for %d mistakes: %.200v", len(problems), problems.Count(), err)
	}
	lines := strings.Split(problems.Error(), "\n")
	if len(lines) != 101 || lines[99] != `conf.d/many.toml:100: hostnames: "-": isn't a valid hostname` || lines[100] != "and 99900 more" {
		t.Errorf("the last lines are %q", lines[99:])
	}
}

// TestUnreadableFiles: each names what lets the daemon read it.
func TestUnreadableFiles(t *testing.T) {
	if os.Getuid() == 0 {
		asNobody(t)
	}
	dir := t.TempDir()
	for _, tt := range []struct{ closed, want string }{
		{"config.toml", "config.toml: can't be read: permission denied (let the user that runs the daemon read it: chgrp autocertd DIR/config.toml && chmod 0640 DIR/config.toml)"},
		{"conf.d/own.toml", "conf.d/own.toml: can't be read: permission denied (let the user that runs the daemon read it: chgrp autocertd DIR/conf.d/own.toml && chmod 0640 DIR/conf.d/own.toml)"},
		{"conf.d", "conf.d: can't be read: permission denied (let the user that runs the daemon read it: chgrp autocertd DIR/conf.d && chmod 0750 DIR/conf.d)"},
		{"it's closed", "conf.d/own.toml:4: ca.own.roots: \"DIR/it's closed/ca.pem\" can't be read: permission denied " +
			`(let the user that runs the daemon read it: chgrp autocertd 'DIR/it'\''s closed' && chmod 0750 'DIR/it'\''s closed')`},
		{"eab", "conf.d/own.toml:5: ca.own.eab.hmac_key: the file \"DIR/eab\" can't be read: permission denied (let the user that runs the daemon read it: chgrp autocertd DIR/eab && chmod 0640 DIR/eab)"},
		{"good.csr", "conf.d/own.toml:8: certificate.csr: \"DIR/good.csr\" can't be read: permission denied (let the user that runs the daemon read it: chgrp autocertd DIR/good.csr && chmod 0640 DIR/good.csr)"},
	} {
		root, csr := fileOf(t, "private-names", "ca.pem"), fileOf(t, "csr", "good.csr")
		root.Name = "it's closed/ca.pem"
		write(t, dir, []txtar.File{root, csr, {Name: "eab", Data: []byte("aHVudGVyMg==")},
			{Name: "config.toml", Data: []byte(minimal + "hostnames = [\"www.corp.example.com\"]\n[defaults]\nca = [\"le\"]\n")},
			{Name: "conf.d/own.toml", Data: []byte("[ca.own]\ndirectory = \"https://ca.corp.example.com/dir\"\naccept_terms = true\nroots = [\"../it's closed/ca.pem\"]\n" +
				"eab = { kid = \"k\", hmac_key = { file = \"../eab\" } }\n[[certificate]]\nname = \"appliance\"\ncsr = \"../good.csr\"\n")}})
		closed := filepath.Join(dir, tt.closed)
		info, err := os.Stat(closed)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		_, err = Load(filepath.Join(dir, "config.toml"), checks())
		if err := os.Chmod(closed, info.Mode()); err != nil {
			t.Fatal(err)
		}
		problems, _ := errors.AsType[Problems](err)
		got := strings.ReplaceAll(strings.Replace(told(err), dir+"/", "", 1), dir, "DIR")
		if got != tt.want || !problems.Unreadable() {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.closed, got, tt.want)
		}
	}
}

// asNobody makes the test's thread act as a user without rights.
func asNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	if err := syscall.Seteuid(nobody); err != nil {
		t.Skipf("can't act as another user: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Seteuid(0); err != nil {
			t.Fatal(err)
		}
	})
	t.Setenv("TMPDIR", "/tmp")
}
