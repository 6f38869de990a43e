package main

import (
	"bytes"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"autocertd/internal/testbed"
)

// certstatus FILE Valid|Revoked wants the CA to say that of the certificate in FILE, of a chain the first.
func scriptCertStatus(ca *testbed.CA) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		if len(args) != 2 {
			ts.Fatalf("usage: certstatus FILE Valid|Revoked")
		}
		cert, _, err := readPair(ts.MkAbs(args[0]), "")
		ts.Check(err)
		status, err := ca.CertStatus(hex.EncodeToString(cert.SerialNumber.Bytes()))
		ts.Check(err)
		if status != args[1] {
			ts.Fatalf("%s is %s, want %s", args[0], status, args[1])
		}
	}
}

// TestConfirm answers the question of a command on a terminal.
func TestConfirm(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("state_dir = \""+dir+"/state\"\n[ca.test]\ndirectory = \"https://127.0.0.1:1/dir\"\naccept_terms = true\n"+
		"[provider.dns]\ntype = \"exec\"\ncommand = [\"/bin/true\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(dir, "cert.pem")
	ca, err := testbed.StartCA(testbed.CAConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() })
	if err := os.WriteFile(cert, ca.TLSRootsPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		answer string
		goesOn bool // to the CA, which isn't there
	}{
		{"yes\n", true},
		{"YES\n", true},
		{"no\n", false},
		{"\n", false},
		{"y\n", false},
		{"\x04", false}, // the end of the input
	} {
		t.Run(strings.TrimSpace(tt.answer), func(t *testing.T) {
			screen, tty, err := openTerminal(200)
			if err != nil {
				t.Fatal(err)
			}
			defer screen.Close()
			cmd := exec.Command("autocertd", "revoke", "--cert", cert, "--config", config)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
			if _, err := io.WriteString(screen, tt.answer); err != nil {
				t.Fatal(err)
			}
			err = cmd.Start()
			_ = tty.Close()
			if err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			_, _ = io.Copy(&said, screen) // it ends with an error when nobody holds the terminal any more
			_ = cmd.Wait()
			text := said.String()
			if !strings.Contains(text, "This revokes the certificate for ") || !strings.Contains(text, "at CA test, reason unspecified. Type yes to go on: ") {
				t.Errorf("it asks %q", text)
			}
			if strings.Contains(text, "no account is registered") != tt.goesOn || strings.Contains(text, "nothing was changed") == tt.goesOn || cmd.ProcessState.ExitCode() != exitFailed {
				t.Errorf("%q: status %d, %q", tt.answer, cmd.ProcessState.ExitCode(), text)
			}
		})
	}
}
