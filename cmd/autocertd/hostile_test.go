//go:build linux

package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"autocertd/internal/testbed/hostile"
)

// What becomes of a certificate whose CA turns hostile while it has one.
type fate int

const (
	kept     fate = iota // a failure is told, and the old one stays in use
	replaced             // the CA is odd, and its certificate is of use
	waits                // nothing is told within the test: the CA is silent, or works
)

// fates says so for each mode. Modes that aren't here are held to what holds for all of them.
func fates() map[string]fate {
	list := map[string]fate{}
	for f, modes := range map[fate]string{
		replaced: `authz-value cert-soon cert-extraname cert-nochain cert-cafirst link-up link-up-elsewhere link-alternate link-alternate-elsewhere text-directory text-issuer
			field-orders field-notbefore field-expires field-never field-wildcard field-validated field-account field-type field-json field-relative field-relative-account field-meta url-renewal
			finalize-notready challenge-conflict account-malformed`,
		waits: `silent silent-order polls finalize-processing`,
		kept: `authz-name authz-parent authz-type authz-wildcard authz-token authz-token-long authz-twice authz-many
			url-authz url-authz-plain url-challenge url-finalize url-certificate url-directory redirect-directory redirect-neworder redirect-challenge redirect-finalize
			endless-nonce endless-order endless-authz endless-chain endless-error chain-long
			cert-notyet cert-expired cert-ending cert-othername cert-otherkey cert-foreignchain cert-selfissued cert-404 cert-503 cert-lost cert-html cert-garbage cert-brief
			text-problem text-long text-html text-status text-subjects field-problem order-null order-empty order-nolocation order-nocertificate order-lost retry-after
			finalize-500 finalize-badcsr account-429 account-blocked`,
	} {
		for _, mode := range strings.Fields(modes) {
			list[mode] = f
		}
	}
	return list
}

const (
	mostMemory = 100 << 10 // KiB
	longestLog = 4 << 10   // bytes of a line
	wellWithin = time.Minute
)

// hostileSite is a site with a hostile CA for each mode beside its own.
type hostileSite struct {
	*site
	modes   []string
	input   io.Writer
	answers *bufio.Scanner
}

// newHostileSite starts the CAs, all in one process, which behave so far.
func newHostileSite(t *testing.T) *hostileSite {
	t.Helper()
	s := &hostileSite{site: newSite(t, siteConfig{}), modes: hostile.Modes()}
	cmd := exec.Command("hostileca", "-dns", s.bind.Addr(), "-dir", s.dir)
	cmd.SysProcAttr, cmd.Stderr = dieWithTests(), os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = input.Close() // which ends it
		_ = cmd.Wait()
	})
	s.input, s.answers = input, bufio.NewScanner(output)
	s.hostnames = []string{"well1." + zone, "well2." + zone, "well3." + zone}
	s.tables = "[defaults]\nca = [\"test\"]\n"
	for _, line := range s.read(t) {
		mode, directory, _ := strings.Cut(line, " ")
		s.tables += fmt.Sprintf("[ca.%s]\ndirectory = %q\naccept_terms = true\nroots = [%q]\n", mode, directory, mode+".tls.pem")
		s.tables += fmt.Sprintf("[[certificate]]\nname = %q\nhostnames = [%q]\nca = [%q]\n", mode, mode+"."+zone, mode)
		roots, err := os.ReadFile(s.path(mode + ".roots.pem"))
		if err != nil {
			t.Fatal(err)
		}
		s.root.AppendCertsFromPEM(roots)
	}
	return s
}

// read returns what the CAs say, up to "done".
func (s *hostileSite) read(t *testing.T) (lines []string) {
	t.Helper()
	for s.answers.Scan() {
		if s.answers.Text() == "done" {
			return lines
		}
		lines = append(lines, s.answers.Text())
	}
	t.Fatal("the hostile CAs are gone")
	return nil
}

// tell sends a command to the CAs and returns what they say.
func (s *hostileSite) tell(t *testing.T, command string) []string {
	t.Helper()
	if _, err := fmt.Fprintln(s.input, command); err != nil {
		t.Fatal(err)
	}
	return s.read(t)
}

// leaf reads the certificate of a mode from where services do.
func (s *hostileSite) leaf(mode string) (*x509.Certificate, error) {
	text, err := os.ReadFile(s.path("state", "live", mode, "cert.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate", mode)
	}
	return x509.ParseCertificate(block.Bytes)
}

// renewedTo reports whether a certificate has a key of the second type.
func (s *hostileSite) renewedTo(mode string) bool {
	leaf, err := s.leaf(mode)
	if err != nil {
		return false
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	return ok && key.Curve == elliptic.P384()
}

// TestHostileCAs runs the whole daemon with a hostile CA of each mode beside a well one. Each certificate has been issued
// while its CA behaved; then all CAs but one turn, the accounts are lost, and all certificates are due at once.
func TestHostileCAs(t *testing.T) {
	s := newHostileSite(t)
	d := s.start(t)
	s.deployed(t, s.hostnames...)
	before := map[string]*x509.Certificate{}
	for _, mode := range s.modes {
		eventually(t, func() (err error) {
			before[mode], err = s.pair(mode, mode+"."+zone)
			return err
		})
	}
	d.stop(t)
	s.clean(t, zone)

	s.tell(t, "turn")
	if err := os.RemoveAll(s.path("state", "accounts")); err != nil {
		t.Fatal(err)
	}
	s.tables = strings.Replace(s.tables, "ca = [\"test\"]\n", "ca = [\"test\"]\nkey_type = \"ecdsa-p384\"\n", 1)
	begin := time.Now()
	d = s.start(t)
	eventually(t, func() error {
		for _, name := range s.hostnames {
			if !s.renewedTo(name) {
				return fmt.Errorf("%s is as before", name)
			}
		}
		return nil
	})
	took := time.Since(begin)
	t.Logf("the well CA's certificates came after %s", took.Round(time.Millisecond))
	if took > wellWithin {
		t.Errorf("the hostile CAs have held up the well one: its certificates came after %s", took)
	}
	s.settled(t)

	failures := map[string]certificateStatus{}
	for _, c := range s.report(t).Certificates {
		failures[c.Name] = c
	}
	known := fates()
	for _, mode := range s.modes {
		t.Run(mode, func(t *testing.T) {
			want, ok := known[mode]
			if !ok {
				t.Skip("held to what holds for all modes")
			}
			status := failures[mode]
			t.Log(status.Issue.Error)
			if renewed := s.renewedTo(mode); renewed != (want == replaced) {
				t.Errorf("the old certificate was replaced: %t", renewed)
			}
			if told := status.Issue.Failures > 0; told != (want == kept) {
				t.Errorf("it has failed %d times: %s", status.Issue.Failures, status.Issue.Error)
			}
			if want != replaced {
				now, err := s.pair(mode, mode+"."+zone)
				if err != nil || !now.Equal(before[mode]) {
					t.Errorf("the certificate from before isn't in use: %v", err)
				}
			}
			shown := s.command(t, "status", mode)
			if strings.ContainsFunc(shown.stdout+shown.stderr, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Errorf("status shows what does something to a terminal: %q", shown.stdout)
			}
		})
	}

	t.Run("forced", func(t *testing.T) {
		before := s.tell(t, "seen cert-404 newOrder")
		s.command(t, "renew", "--force", "cert-404")
		if after := s.tell(t, "seen cert-404 newOrder"); slices.Equal(before, after) {
			t.Errorf("a forced renewal has met the dead order once more: %v requests for a new one", after)
		}
	})
	if strangers := s.tell(t, "visits"); len(strangers) > 0 {
		t.Errorf("strangers were asked: %v", strangers)
	}
	s.publishedIsOrdered(t)
	if peak := peakMemory(t, d.cmd.Process.Pid); peak > mostMemory {
		t.Errorf("the daemon took %d KiB of memory", peak)
	} else {
		t.Logf("the daemon took %d KiB of memory", peak)
	}
	longest := ""
	for line := range strings.Lines(d.says(t)) {
		if len(line) > len(longest) {
			longest = line
		}
	}
	if t.Logf("the longest line of the log has %d bytes", len(longest)); len(longest) > longestLog {
		t.Errorf("a line of the log is too long: %.300s …", longest)
	}
	d.stop(t)
	s.clean(t, zone)
}

// settled waits until each certificate has met its fate, except those that wait.
func (s *hostileSite) settled(t *testing.T) {
	t.Helper()
	known := fates()
	var open []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		open = nil
		for _, c := range s.report(t).Certificates {
			f, ok := known[c.Name]
			if ok && (f == kept && c.Issue.Failures == 0 || f == replaced && c.Issue.Failures == 0 && !s.renewedTo(c.Name)) {
				open = append(open, c.Name)
			}
		}
		if len(open) == 0 {
			return
		}
	}
	t.Fatalf("nothing became of %v", open)
}

// publishedIsOrdered reads in BIND's log which records were added, ever.
func (s *hostileSite) publishedIsOrdered(t *testing.T) {
	t.Helper()
	logs, err := filepath.Glob(s.path("bind-*", "ns1", "named.log"))
	if err != nil || len(logs) != 1 {
		t.Fatalf("BIND's logs are %v (%v)", logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	added := regexp.MustCompile(`adding an RR at '([^']*)' TXT`).FindAllStringSubmatch(string(text), -1)
	if len(added) < len(s.modes) {
		t.Fatalf("BIND's log tells of %d records for %d certificates", len(added), len(s.modes))
	}
	for _, match := range added {
		hostname, challenge := strings.CutPrefix(match[1], "_acme-challenge.")
		mode, ours := strings.CutSuffix(hostname, "."+zone)
		if !challenge || !ours || !slices.Contains(s.modes, mode) && !slices.Contains(s.hostnames, hostname) {
			t.Errorf("a record was published at %s, which nobody ordered", match[1])
		}
	}
}

// peakMemory is the most memory that a process has had, in KiB.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the system doesn't tell the memory of a process")
	return 0
}
