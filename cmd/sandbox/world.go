package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What the sandbox writes. The marker says that a folder is a sandbox's, to be made anew at each start.
const (
	marker     = ".sandbox"
	configFile = "config.toml"
	keyFile    = "tsig.key"
	rootsFile  = "ca-https.pem"  // what the daemon trusts to talk to the CA
	rootFile   = "root.pem"      // what the certificates chain to
	logFile    = "autocertd.log" // what the daemon says
	stateDir   = "state"
	zone       = "corp.example.com"
)

// prepare makes an empty folder, out of an earlier sandbox or out of nothing.
func prepare(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%s has files in it that no sandbox made; choose another folder by -dir", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), []byte("made by autocertd's sandbox; removed at its next start\n"), 0o644)
}

func (s *sandbox) path(name string) string { return filepath.Join(s.dir, name) }

// write writes the configuration and what it names.
func (s *sandbox) write() error {
	root, err := s.ca.IssuerRootPEM()
	if err != nil {
		return err
	}
	state, err := filepath.Abs(s.path(stateDir))
	if err != nil {
		return err
	}
	key := s.dns.Key("acme-key")
	secret := fmt.Sprintf("key %q {\n\talgorithm %s;\n\tsecret %q;\n};\n", key.Name, key.Algorithm, key.Secret)
	text := strings.NewReplacer("{directory}", s.ca.Directory(), "{server}", s.dns.Addr(), "{state}", state).Replace(configText)
	return errors.Join(
		os.WriteFile(s.path(keyFile), []byte(secret), 0o600),
		os.WriteFile(s.path(rootsFile), s.ca.TLSRootsPEM(), 0o644),
		os.WriteFile(s.path(rootFile), root, 0o644),
		os.WriteFile(s.path(configFile), []byte(text), 0o644),
	)
}

const configText = `# The sandbox's configuration. Add a hostname, save, and watch.
hostnames = [
	"bsys.corp.example.com",
	"rpmb.corp.example.com",
	"*.apps.corp.example.com",
]
state_dir = "{state}"

[ca.sandbox]
directory    = "{directory}"
accept_terms = true
roots        = ["ca-https.pem"]

[provider.dns]
type     = "rfc2136"
server   = "{server}"
key_file = "tsig.key"

[[certificate]]
name      = "site"
hostnames = ["corp.example.com", "www.corp.example.com"]
`
