//go:build linux

package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/rogpeppe/go-internal/txtar"

	"autocertd/internal/lifecycle"
	"autocertd/internal/testbed"
)

// olderState is the state directory that an earlier version left when it was killed: with open orders, their records in the
// zone and in the journal, certificates on hold, one that couldn't be deployed, and half a rollover of the account's key,
// which the CA has carried out. The account, the orders and the records are made again at the servers of the test.
type olderState struct {
	files     map[string]string
	directory string
}

const olderDirectory = "https://127.0.0.1:14999/dir"

func readOlderState(t *testing.T, s *site, path string) *olderState {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(archive.Comment)), "\n")
	killed, err := time.Parse(time.RFC3339, lines[len(lines)-1])
	if err != nil {
		t.Fatal(err)
	}
	passed := time.Since(killed)
	moment := regexp.MustCompile(`"20[0-9-]+T[0-9:.]+Z"`)
	old := &olderState{files: map[string]string{}, directory: s.ca.Directory()}
	for _, f := range archive.Files {
		text := strings.NewReplacer("$DIR", s.dir, olderDirectory, old.directory).Replace(string(f.Data))
		if !strings.HasPrefix(f.Name, "bundles/") { // certificates keep their dates
			text = moment.ReplaceAllStringFunc(text, func(quoted string) string {
				at, err := time.Parse(`"`+time.RFC3339Nano+`"`, quoted)
				if err != nil {
					t.Fatal(err)
				}
				return at.Add(passed).Format(`"` + time.RFC3339Nano + `"`)
			})
		}
		name := strings.ReplaceAll(f.Name, accountFolder(olderDirectory), accountFolder(old.directory))
		old.files[name] = text
	}
	return old
}

// accountFolder returns the folder of the objects of a CA's account.
func accountFolder(directory string) string {
	sum := sha256.Sum256([]byte(directory))
	return "test-" + hex.EncodeToString(sum[:4])
}

// replace replaces text in all files.
func (o *olderState) replace(old, new string) {
	for name, text := range o.files {
		o.files[name] = strings.ReplaceAll(text, old, new)
	}
}

func (o *olderState) write(t *testing.T, dir string) {
	t.Helper()
	for name, text := range o.files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = errors.Join(err, os.Symlink(strings.TrimSpace(target), path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// makeOrders registers the account with the key that the CA has taken over, and makes the open orders again.
func (o *olderState) makeOrders(t *testing.T, s *site) {
	t.Helper()
	folder := "accounts/" + accountFolder(o.directory) + "/"
	block, _ := pem.Decode([]byte(o.files[folder+"key-next.pem"]))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	client := &acme.Client{Directory: o.directory,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.TLSRoots()}}}}
	account, err := client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: key.(crypto.Signer)})
	if err != nil {
		t.Fatal(err)
	}
	var stored struct{ URL string }
	if err := json.Unmarshal([]byte(o.files[folder+"account.json"]), &stored); err != nil {
		t.Fatal(err)
	}
	o.replace(stored.URL, account.Location)
	for name, text := range o.files {
		if !strings.HasPrefix(name, "orders/") {
			continue
		}
		var open struct {
			URL       string
			Hostnames []string
		}
		if err := json.Unmarshal([]byte(text), &open); err != nil {
			t.Fatal(err)
		}
		order, err := client.NewOrder(t.Context(), account, acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: open.Hostnames[0]}}})
		if err != nil {
			t.Fatal(err)
		}
		o.replace(open.URL, order.Location)
	}
}

// publish puts the records of the journal into their zones.
func (o *olderState) publish(t *testing.T, s *site) (n int) {
	t.Helper()
	var script strings.Builder
	for name, text := range o.files {
		if !strings.HasPrefix(name, "journal/") {
			continue
		}
		var entry struct {
			Zone    string
			Records []struct{ Name, Value string }
		}
		if err := json.Unmarshal([]byte(text), &entry); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, "zone %s\n", entry.Zone)
		for _, r := range entry.Records {
			fmt.Fprintf(&script, "update add %s. 60 TXT %q\n", r.Name, r.Value)
			n++
		}
		script.WriteString("send\n")
	}
	if out, err := nsupdate(t.Context(), s.bind, script.String()); err != nil {
		t.Fatalf("nsupdate: %v: %s", err, out)
	}
	return n
}

// TestOlderState has the daemon take over what an earlier version left: it goes on with its orders, account and holds,
// leaves its certificates alone, and removes its records.
func TestOlderState(t *testing.T) {
	t.Parallel()
	archives, err := filepath.Glob("testdata/state/*.txtar")
	if err != nil || len(archives) < 2 {
		t.Fatalf("archives %v, %v", archives, err)
	}
	for _, path := range archives {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			takeOver(t, path)
		})
	}
}

func takeOver(t *testing.T, path string) {
	s := newSite(t, siteConfig{bind: testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: zone}, {Name: "other.test"}}}})
	s.hostnames = []string{"a.example.test", "b.example.test", "c.example.test", "d.example.test", "e.example.test",
		"f.example.test", "g.example.test", "h.other.test"}
	s.tables = fmt.Sprintf("[ca.test.limits]\norders = \"300 per 3h\"\ncertificates_per_domain = \"5 per 7d\"\n"+
		"[[output]]\nmatch = [\"c.*\"]\nformat = \"combined\"\ndir = %q\nfile = \"{name}.pem\"\nrun = [[\"/bin/false\"]]\n", s.path("out"))
	if err := os.Mkdir(s.path("out"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := readOlderState(t, s, path)
	old.makeOrders(t, s)
	made := s.ca.NewOrders()
	if published := old.publish(t, s); made != 3 || published != 3 {
		t.Fatalf("%d orders and %d records to take over", made, published)
	}
	old.write(t, s.path("state"))

	d := s.start(t)
	s.deployed(t, "d.example.test", "e.example.test", "h.other.test")
	s.clean(t, zone)
	s.clean(t, "other.test")
	eventually(t, func() error {
		if left := s.objects("orders", "test"); len(left) > 0 {
			return fmt.Errorf("open orders: %v", left)
		}
		return nil
	})
	for _, name := range []string{"f.example.test", "g.example.test"} {
		if c := s.about(t, name); c.Condition != lifecycle.OnHold {
			t.Errorf("%s is %s", name, c.Condition)
		}
	}
	for _, name := range s.hostnames[:3] {
		var before, now struct{ Leaf string }
		data, err := os.ReadFile(s.path("state", "bundles", name+".json"))
		if err := errors.Join(err, json.Unmarshal(data, &now), json.Unmarshal([]byte(old.files["bundles/"+name+".json"]), &before)); err != nil {
			t.Fatal(err)
		}
		if before.Leaf == "" || before.Leaf != now.Leaf {
			t.Errorf("%s has another certificate", name)
		}
	}
	eventually(t, func() error {
		if c := s.about(t, "c.example.test"); c.Deploy.Failures < 3 || len(c.Pending) == 0 {
			return fmt.Errorf("c.example.test: %d failures to deploy, still to do %v", c.Deploy.Failures, c.Pending)
		}
		return nil
	})
	d.stop(t)
	if n := s.ca.NewOrders(); n != made {
		t.Errorf("%d orders too many", n-made)
	}

	folder := s.path("state", "accounts", accountFolder(old.directory))
	show := s.command(t, "account", "show")
	key, err := os.ReadFile(filepath.Join(folder, "key.pem"))
	if next := old.files["accounts/"+accountFolder(old.directory)+"/key-next.pem"]; err != nil || string(key) != next || show.status != 0 {
		t.Errorf("the account has another key than the CA (%v):\n%s%s", err, show.stdout, show.stderr)
	}
	if _, err := os.Stat(filepath.Join(folder, "key-next.pem")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the rollover isn't finished: %v", err)
	}
}
