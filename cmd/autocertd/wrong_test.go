//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"autocertd/internal/term"
)

// wrongSetUp is a set-up that can't work, and what its user reads. Words in capitals stand for what differs from run to
// run: a server's address, its PORT, the site's folder DIR.
type wrongSetUp struct {
	name     string
	hostname string // default: www.example.test, whose record the key may write
	provider string // the lines of its table, one after the other
	tables   string // more tables of the configuration
	message  string
	cure     string
}

// TestWrongSetUps has the mistakes that people make with dns-01, one a row, each made with real servers and met by
// "autocertd renew". Each is told by a message and a cure of its own.
func TestWrongSetUps(t *testing.T) {
	const (
		bind = `server = "PRIMARY"; `
		key  = `key_file = "KEYFILE"; `
	)
	w := newWrongWorld(t)
	t.Parallel()
	rows := []wrongSetUp{
		{
			name:     "wrong secret",
			provider: bind + `key_name = "acme-key"; key = "WRONGSECRET"`,
			message:  `publishing _acme-challenge.www.example.test: PRIMARY has another secret for TSIG key "acme-key" (BADSIG)`,
			cure:     `copy the key from the server again, or make a new one for both sides: tsig-keygen -a hmac-sha256 acme-key`,
		}, {
			name:     "unknown key",
			provider: bind + `key_name = "acme-kee"; key = "SECRET"`,
			message:  `publishing _acme-challenge.www.example.test: PRIMARY has no TSIG key "acme-kee" (BADKEY)`,
			cure:     `on the server, name the file with key "acme-kee" in named.conf: include "/etc/bind/acme-kee.key"; and then: rndc reconfig`,
		}, {
			name:     "wrong algorithm",
			provider: bind + `key_name = "acme-key"; key_alg = "hmac-sha512"; key = "SECRET"`,
			message:  `publishing _acme-challenge.www.example.test: PRIMARY has TSIG key "acme-key" for hmac-sha256, not for hmac-sha512 (BADKEY)`,
			cure:     `set key_alg = "hmac-sha256", or in the key file: algorithm hmac-sha256;`,
		}, {
			name:     "skewed clock",
			provider: `server = "LATE"; ` + key,
			message:  `publishing _acme-challenge.www.example.test: the clock of LATE says TIME, ours says TIME: a signature may be 300 s old, not about 3600 s (BADTIME)`,
			cure:     `set the clock that is wrong: timedatectl set-ntp true`,
		}, {
			name:     "wrong zone: the server has others",
			provider: `server = "FOREIGN"; ` + key,
			tables:   "[resolvers]\npublic = [\"PRIMARY\"]\n",
			message:  `publishing _acme-challenge.www.example.test: FOREIGN doesn't serve zone example.test (NOTAUTH), nor another one that holds _acme-challenge.www.example.test`,
			cure:     `name the zone's primary as server; its name is the first word of: dig +short SOA example.test`,
		}, {
			name:     "REFUSED by policy",
			hostname: "ftp.example.test",
			provider: bind + key,
			message:  `publishing _acme-challenge.ftp.example.test: PRIMARY forbids TSIG key "acme-key" to write TXT at _acme-challenge.ftp.example.test (REFUSED)`,
			cure:     `add to update-policy of zone example.test, above any deny, and run rndc reconfig: grant acme-key name _acme-challenge.ftp.example.test. TXT;`,
		}, {
			// No update leaves for a zone that can't hold the name, so that no server gets to say NOTZONE; TestRFC2136Failures
			// has what follows when one does.
			name:     "NOTZONE: the provider is for another zone",
			provider: bind + key + `zones = ["corp.test"]`,
			message:  `no provider serves _acme-challenge.www.example.test; the providers serve corp.test`,
			cure:     `add the zone to zones of the right one, if that can write there`,
		}, {
			name:     "CNAME in the way",
			hostname: "alias.example.test",
			provider: bind + key,
			message:  `no provider serves _acme-challenge.alias.example.test -> host.elsewhere.test: the servers refuse it`,
			cure:     `add a provider for the zone of the target, or remove the CNAME at _acme-challenge.alias.example.test`,
		}, {
			name:     "dead primary",
			provider: `server = "DEAD"; ` + key,
			message:  `finding the zone of _acme-challenge.www.example.test: nothing listens at DEAD (connection refused)`,
			cure:     `on the server: systemctl status named; ss -lntu sport = :PORT`,
		}, {
			name:     "firewall that drops TCP, which updates need",
			provider: `server = "NOTCP"; ` + key,
			message:  `publishing _acme-challenge.www.example.test: NOTCP can't be reached over TCP (timeout)`,
			cure:     `perhaps a firewall is in between; try: nc -vz HOST PORT`,
		}, {
			name:     "firewall that drops everything",
			provider: `server = "SILENT"; ` + key,
			message:  `finding the zone of _acme-challenge.www.example.test: SILENT doesn't answer, neither by UDP nor by TCP`,
			cure:     `perhaps a firewall is in between; try: dig @HOST -p PORT SOA .`,
		}, {
			name:     "lame delegation",
			hostname: "www.lame.test",
			provider: `servers = ["PRIMARY", "LAME"]; propagation_timeout = "3s"; ` + key,
			message:  `after 3s, 1 of 2 servers have the records: ns9.lame.test (LAME) doesn't serve the zone (REFUSED; a lame delegation: let it serve the zone, or remove its NS record) when asked for _acme-challenge.www.lame.test`,
			cure: `look at NOTIFY and zone transfers to them and at their port 53, or set nameservers to those that the CA can ask, ` +
				`or raise propagation_timeout, or go on without them: min_nameservers = 1`,
		}, {
			name:     "key file not readable",
			provider: bind + `key_file = "UNREADABLE"`,
			message:  `mistake: DIR/config.toml:12: provider.bind.key_file: open UNREADABLE: permission denied`,
			cure:     `let the group of the user that runs the daemon read it: chgrp autocertd UNREADABLE && chmod 0640 UNREADABLE`,
		},
	}
	w.differ(t, rows)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(row.provider, "LATE") && !w.has("LATE") {
				t.Skip("no C compiler to give BIND another clock: apt-get install gcc")
			}
			if got := w.meet(t, row); got != term.WithCure(row.message, row.cure) && got != row.message+": "+row.cure && got != term.WithHint(row.message, row.cure) {
				t.Errorf("the user reads\n%s\ninstead of\n%s\n%s", got, row.message, row.cure)
			}
		})
	}
}

// differ checks that no two rows tell the same, wherever the server is.
func (w *wrongWorld) differ(t *testing.T, rows []wrongSetUp) {
	t.Helper()
	seen := map[string]string{}
	for _, row := range rows {
		for _, text := range []string{row.message, row.cure} {
			for _, server := range w.servers {
				text = strings.ReplaceAll(text, server.word, "SERVER")
			}
			if other, ok := seen[text]; ok {
				t.Errorf("%q and %q are told by the same words: %s", row.name, other, text)
			}
			seen[text] = row.name
		}
	}
}

// meet runs the program on a wrong set-up and returns what it says of the failure, the words of the row in place of what
// they stand for. No secret may be in anything that it says.
func (w *wrongWorld) meet(t *testing.T, row wrongSetUp) string {
	t.Helper()
	s := w.make(t, row)
	r := s.unprivileged(t, "renew")
	if r.status == 0 {
		t.Fatalf("it succeeds:\n%s%s", r.stdout, r.stderr)
	}
	for _, secret := range w.secrets {
		if strings.Contains(r.stdout+r.stderr, secret) {
			t.Errorf("a secret is shown:\n%s%s", r.stdout, r.stderr)
		}
	}
	_, zone, _ := strings.Cut(s.hostnames[0], ".")
	if values, err := w.bind.TXT(t.Context(), zone); err != nil || len(values) > 0 {
		t.Errorf("records are left: %v (%v)", values, err)
	}
	return w.inWords(t, s, failureSaid(t, r))
}

// failureSaid returns the message with which a certificate failed, or the program.
func failureSaid(t *testing.T, r result) string {
	t.Helper()
	for line := range strings.Lines(r.stderr) {
		if strings.HasPrefix(line, "mistake: ") {
			return strings.TrimSpace(line)
		}
		var entry struct{ Level, Err, Cure string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in what it says:\n%s", err, r.stderr)
		}
		if entry.Level == "WARN" {
			return term.WithCure(entry.Err, entry.Cure)
		}
	}
	t.Fatalf("it doesn't say what failed:\n%s", r.stderr)
	return ""
}

// unprivileged runs a command of the program as somebody who can't read every file, which root can.
func (s *site) unprivileged(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line := slices.Concat([]string{"autocertd"}, args, []string{"--config", s.config()})
	if os.Geteuid() == 0 {
		line = slices.Concat([]string{"setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"}, line)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &stdout, &stderr, dieWithTests()
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	note(stderr.String())
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

var (
	timeSaid = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
	anHour   = regexp.MustCompile(`not 3[56]\d\d s`) // between the two looks at the clock some time may pass
)

// inWords replaces what differs from run to run.
func (w *wrongWorld) inWords(t *testing.T, s *site, text string) string {
	t.Helper()
	text = timeSaid.ReplaceAllString(text, "TIME")
	text = anHour.ReplaceAllString(text, "not about 3600 s")
	return strings.NewReplacer(w.pairs(s, false)...).Replace(text)
}

// make makes a folder with the configuration of a row, which uses the servers of all.
func (w *wrongWorld) make(t *testing.T, row wrongSetUp) *site {
	t.Helper()
	s := &site{bind: w.bind, ca: w.ca, dir: t.TempDir(), root: w.root, schedule: "@every 1h"}
	s.writeFile(t, "ca.pem", string(w.ca.TLSRootsPEM()))
	if row.hostname == "" {
		row.hostname = "www." + zone
	}
	s.hostnames = []string{row.hostname}
	fill := strings.NewReplacer(w.pairs(s, true)...)
	s.providers = []string{fmt.Sprintf("[provider.bind]\ntype = \"rfc2136\"\n%s\n", fill.Replace(strings.ReplaceAll(row.provider, "; ", "\n")))}
	s.tables = fill.Replace(row.tables) + "[log]\nformat = \"json\"\n"
	if err := os.WriteFile(s.path("unreadable.key"), nil, 0); err != nil {
		t.Fatal(err)
	}
	s.write(t)
	return s
}
