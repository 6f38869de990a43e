//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// hookText publishes and removes a record as dehydrated (operation, hostname, file, value) and certbot (operation, and
// the rest in variables) want it.
const hookText = `#!/bin/sh -e
case "$1" in
deploy_challenge) op=add name=$2 value=$4 ;;
clean_challenge) op=delete name=$2 value=$4 ;;
add | delete) op=$1 name=$CERTBOT_DOMAIN value=$CERTBOT_VALIDATION ;;
*) exit 0 ;;
esac
printf 'server %%s %%s\nupdate %%s _acme-challenge.%%s. 60 TXT "%%s"\nsend\n' '%s' '%s' "$op" "$name" "$value" | nsupdate -k '%s'
`

// writeHook writes the program that certbot and dehydrated call.
func (s *site) writeHook(t *testing.T) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.bind.Addr())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(hookText, host, port, s.bind.KeyFile("acme-key"))
	if err := os.WriteFile(s.path("hook"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// runClient runs another client's program, with variables beside our own.
func runClient(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = dieWithTests()
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
}

func runCertbot(t *testing.T, s *site, dir string) {
	work := t.TempDir()
	common := []string{"certonly", "--non-interactive", "--agree-tos", "--email", "ssl@example.test", "--server", s.ca.Directory(),
		"--config-dir", dir, "--work-dir", work, "--logs-dir", work, "--manual", "--preferred-challenges", "dns",
		"--manual-auth-hook", s.path("hook") + " add", "--manual-cleanup-hook", s.path("hook") + " delete"}
	for _, args := range [][]string{
		{"-d", "one-certbot.example.test"},
		{"-d", "two-certbot.example.test", "-d", "*.two-certbot.example.test", "--cert-name", "two", "--key-type", "rsa"},
	} {
		runClient(t, []string{"REQUESTS_CA_BUNDLE=" + s.path("ca.pem")}, "certbot", append(common, args...)...)
	}
}

func runLego(t *testing.T, s *site, dir string) {
	key := s.bind.Key("acme-key")
	env := []string{"LEGO_CA_CERTIFICATES=" + s.path("ca.pem"), "RFC2136_NAMESERVER=" + s.bind.Addr(), "RFC2136_TSIG_KEY=" + key.Name + ".",
		"RFC2136_TSIG_SECRET=" + key.Secret, "RFC2136_TSIG_ALGORITHM=" + key.Algorithm + "."}
	runClient(t, env, "lego", "--server", s.ca.Directory(), "--email", "ssl@example.test", "--accept-tos", "--path", dir,
		"--dns", "rfc2136", "--dns.resolvers", s.bind.Addr(), "--dns.disable-cp", "--domains", "one-lego.example.test", "run")
}

func runDehydrated(t *testing.T, s *site, dir string) {
	config := filepath.Join(dir, "config")
	for file, text := range map[string]string{
		config: fmt.Sprintf("BASEDIR=%q\nCA=%q\nCHALLENGETYPE=dns-01\nHOOK=%q\nCONTACT_EMAIL=ssl@example.test\nCURL_OPTS=\"--cacert %s\"\n",
			dir, s.ca.Directory(), s.path("hook"), s.path("ca.pem")),
		filepath.Join(dir, "domains.txt"): "one-dehydrated.example.test\ntwo-dehydrated.example.test *.two-dehydrated.example.test > two\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"--register", "--accept-terms"}, {"--cron"}} {
		runClient(t, nil, "dehydrated", append([]string{"--config", config}, args...)...)
	}
}
