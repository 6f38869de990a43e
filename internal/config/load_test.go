package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"autocertd/internal/deploy"
	"autocertd/internal/dnschallenge"
	"autocertd/internal/suggest"
)

const full = `
-- config.toml --
hostnames = ["WWW.Corp.Example.com.", "*.corp.example.com", "bücher.corp.example.com"]
state_dir = "/srv/autocertd/"
schedule = "*/5 * * * *"
concurrency = 4

[renewal]
window = "02:00-05:00"
emergency = "36h"

[defaults]
ca = ["le"]
key_type = "ecdsa-p384"
profile = "classic"

[ca.le]
directory = "letsencrypt"
email = "ssladmin@corp.example.com"
accept_terms = true
eab = { kid = "kid-1", hmac_key = "aHVudGVyMg==" }
preferred_chain = "ISRG Root X1"
hosts = ["Acme.Example.net", "192.0.2.1:8443", "https://other.example.net/acme/new-order"]

[provider.bind]
type = "rfc2136"
server = "ns1.corp.example.com"
key = { file = "tsig.secret" }
zones = ["Corp.Example.com.", "_acme.example.net"]
nameservers = ["192.0.2.53", "2001:db8::53", "[2001:db8::53]:5353", "NS1.corp.example.com:54", "ns2"]
check = "resolvers"
min_nameservers = 5
settle = true
propagation_timeout = "90s"
ttl = "5m"
-- tsig.secret --
hunter2
-- conf.d/20-web.toml --
hostnames = ["last.corp.example.com"]

[ca.a]
directory = "https://ca.corp.example.com/directory"
accept_terms = true
profile = "short"

[provider.a]
type = "rfc2136"
server = "ns2.corp.example.com"
zones = ["example.org"]

[[certificate]]
name = "Web_1"
hostnames = ["a.corp.example.com", "A.corp.example.com.", "b.corp.example.com"]
ca = ["a", "le"]
key_type = "rsa-2048"
profile = ""
reuse_key = true

[[output]]
match = ["Web_1"]
dir = "/etc/ssl//web/"
owner = "root"
group = "1000"
mode = "0640"
reload = ["nginx.service", "php8.2-fpm@a.service"]
run = [["/usr/bin/push", "{name}", "{}"]]
-- conf.d/10-log.toml --
[log]
level = "debug"
format = "json"

[resolvers]
public = ["192.0.2.53", "[::1]:5353"]

[[output]]
dir = "/etc/haproxy"
format = "combined"
order = "key-first"
`

func TestLoad(t *testing.T) {
	unpack(t, txtar.Parse([]byte(full)))
	var outputs deploy.Outputs
	got, err := Load("config.toml", building(checks(), &outputs))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Warnings) > 0 {
		t.Errorf("warnings: %v", got.Warnings)
	}
	want := &Config{
		Path:        "config.toml",
		Files:       []string{"config.toml", "conf.d/10-log.toml", "conf.d/20-web.toml"},
		StateDir:    "/srv/autocertd",
		Schedule:    "*/5 * * * *",
		Concurrency: 4,
		Renewal:     Renewal{Window: "02:00-05:00", Emergency: 36 * time.Hour},
		Resolvers:   []string{"192.0.2.53:53", "[::1]:5353"},
		Log:         Log{Level: slog.LevelDebug, Format: "json"},
		CAs: []CA{
			{Name: "le", Directory: "https://acme-v02.api.letsencrypt.org/directory", Staging: "https://acme-staging-v02.api.letsencrypt.org/directory", Email: "ssladmin@corp.example.com",
				AcceptTerms: true, EAB: &EAB{KeyID: "kid-1", HMACKey: got.CAs[0].EAB.HMACKey}, PreferredChain: "ISRG Root X1",
				Hosts: []string{"acme.example.net:443", "192.0.2.1:8443", "other.example.net:443"}},
			{Name: "a", Directory: "https://ca.corp.example.com/directory", AcceptTerms: true, Profile: "short"},
		},
		Providers: []*Provider{
			{Name: "bind", Type: "rfc2136", Zones: []string{"corp.example.com", "_acme.example.net"},
				Nameservers: []string{"192.0.2.53:53", "[2001:db8::53]:53", "[2001:db8::53]:5353", "ns1.corp.example.com:54", "ns2:53"},
				Check:       "resolvers", MinNameservers: 5, Settle: true, PropagationTimeout: 90 * time.Second, TTL: 5 * time.Minute, options: got.Providers[0].options},
			{Name: "a", Type: "rfc2136", Zones: []string{"example.org"}, Check: "authoritative",
				PropagationTimeout: 2 * time.Minute, TTL: time.Minute, options: got.Providers[1].options},
		},
		Certificates: []Certificate{
			{Name: "www.corp.example.com", Hostnames: []string{"www.corp.example.com"}, CAs: []string{"le"}, KeyType: "ecdsa-p384", Profile: "classic"},
			{Name: "_.corp.example.com", Hostnames: []string{"*.corp.example.com"}, CAs: []string{"le"}, KeyType: "ecdsa-p384", Profile: "classic"},
			{Name: "xn--bcher-kva.corp.example.com", Hostnames: []string{"xn--bcher-kva.corp.example.com"}, CAs: []string{"le"}, KeyType: "ecdsa-p384", Profile: "classic"},
			{Name: "last.corp.example.com", Hostnames: []string{"last.corp.example.com"}, CAs: []string{"le"}, KeyType: "ecdsa-p384", Profile: "classic"},
			{Name: "Web_1", Hostnames: []string{"a.corp.example.com", "b.corp.example.com"}, CAs: []string{"a", "le"}, KeyType: "rsa-2048", ReuseKey: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	wantOutputs := []deploy.Output{
		{Match: []string{"*"}, Dir: "/etc/haproxy", File: "{name}.pem", Format: "combined", KeyFirst: true, Mode: 0o600},
		{Match: []string{"Web_1"}, Dir: "/etc/ssl/web", Format: "pem", Owner: "root", Group: "1000", Mode: 0o640,
			Reload: []string{"nginx.service", "php8.2-fpm@a.service"}, Run: [][]string{{"/usr/bin/push", "{name}", "{}"}}},
	}
	if !reflect.DeepEqual(outputs.List, wantOutputs) {
		t.Errorf("got  %+v\nwant %+v", outputs.List, wantOutputs)
	}
	if key := got.CAs[0].EAB.HMACKey.Reveal(); key != "aHVudGVyMg" {
		t.Errorf("the HMAC key is %q", key)
	}
}

// TestSnapshotShowsNoSecret prints a whole snapshot, the undecoded options of its providers included.
func TestSnapshotShowsNoSecret(t *testing.T) {
	unpack(t, txtar.Parse([]byte(strings.Replace(full, `key = { file = "tsig.secret" }`, `key = "hunter2"`, 1))))
	config, err := Load("config.toml", checks())
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", config, "provider", *config.Providers[0])
	for _, out := range []string{fmt.Sprintf("%v %+v %#v", config, *config.Providers[0], *config.Providers[0]), string(asJSON), log.String()} {
		if strings.Contains(out, "hunter2") || strings.Contains(out, "aHVudGVyMg") {
			t.Errorf("a secret is shown: %s", out)
		}
	}
}

// TestPublicCAs: a table that is named like a public CA needs no directory, and any may name one by its short name.
func TestPublicCAs(t *testing.T) {
	for name, want := range map[string]string{
		"letsencrypt": "https://acme-v02.api.letsencrypt.org/directory", "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
		"zerossl": "https://acme.zerossl.com/v2/DV90", "google": "https://dv.acme-v02.api.pki.goog/directory"} {
		text := "[defaults]\nca = [\"other\"]\n[ca." + name + "]\naccept_terms = true\n[ca.other]\ndirectory = \"" + name + "\"\nstaging = \"https://staging.test/\"\naccept_terms = true\n"
		unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte("hostnames = [\"www.corp.example.com\"]\n" + text +
			"[provider.bind]\ntype = \"rfc2136\"\nserver = \"ns1.corp.example.com\"\n")}}})
		got, err := Load("config.toml", Checks{})
		if err != nil {
			t.Fatal(err)
		}
		rehearses := map[string]string{"letsencrypt": "https://acme-staging-v02.api.letsencrypt.org/directory"}[name]
		if a, b := got.CAs[0], got.CAs[1]; a.Directory != want || a.Staging != rehearses || b.Directory != want || b.Staging != "https://staging.test/" {
			t.Errorf("%s: got %+v and %+v", name, a, b)
		}
	}
}

func TestDefaults(t *testing.T) {
	unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(minimal + `hostnames = ["www.corp.example.com"]`)}}})
	got, err := Load("config.toml", Checks{})
	if err != nil {
		t.Fatal(err)
	}
	if got.StateDir != "/var/lib/autocertd" || got.Schedule != "* * * * *" || got.Concurrency != 16 ||
		got.Renewal != (Renewal{}) || got.Log != (Log{Level: slog.LevelInfo, Format: "auto"}) || got.Resolvers != nil {
		t.Errorf("got %+v", got)
	}
	want := []Certificate{{Name: "www.corp.example.com", Hostnames: []string{"www.corp.example.com"}, CAs: []string{"le"}, KeyType: "ecdsa-p256", Profile: ""}}
	if !reflect.DeepEqual(got.Certificates, want) {
		t.Errorf("got %+v, want %+v", got.Certificates, want)
	}
	if p := got.Providers[0]; p.Zones != nil || p.Check != "authoritative" || p.MinNameservers != 0 || p.Settle || p.PropagationTimeout != 2*time.Minute || p.TTL != time.Minute {
		t.Errorf("got %+v", p)
	}
}

// minimal is what every configuration needs, before hostnames are added.
const minimal = `ca.le = { directory = "letsencrypt", accept_terms = true }
provider.bind = { type = "rfc2136", server = "ns1.corp.example.com" }
`

func TestProviderDecode(t *testing.T) {
	unpack(t, txtar.Parse([]byte(full)))
	config, err := Load("config.toml", Checks{})
	if err != nil {
		t.Fatal(err)
	}
	p := config.Providers[0]
	for range 2 { // as often as one likes
		var o options
		if err := p.Decode(&o); err != nil {
			t.Fatal(err)
		}
		if o.Server != "ns1.corp.example.com" || o.Key.Reveal() != "hunter2" {
			t.Errorf("got %+v", o)
		}
	}
	if p.Dir() != "." || config.Providers[1].Dir() != "conf.d" {
		t.Errorf("got %q and %q", p.Dir(), config.Providers[1].Dir())
	}
	var o struct {
		Server string `toml:"servr"`
		hidden string
	}
	err = p.Decode(&o)
	want := "config.toml:26: provider.bind.key: unknown key\n" +
		"config.toml:25: provider.bind.server: unknown key (did you mean servr?)"
	if got := told(err); got != want || o.hidden != "" {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFilesThatCantBeRead(t *testing.T) {
	write := func(data []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, data, 0o600) }
	}
	tests := []struct {
		name string
		make func(path string) error
		want string
	}{
		{"missing", func(string) error { return nil }, "config.toml: can't be read: no such file or directory"},
		{"a folder", func(path string) error { return os.Mkdir(path, 0o700) }, "config.toml: isn't a regular file (a folder, a pipe or a device stands there; move it away, or name a file)"},
		{"a pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "config.toml: isn't a regular file (a folder, a pipe or a device stands there; move it away, or name a file)"},
		{"a link to nowhere", func(path string) error { return os.Symlink("nowhere", path) },
			`config.toml: can't be read: no such file or directory (it is a link to "nowhere", and nothing is there: put the file there, or remove the link)`},
		{"a device", func(path string) error { return os.Symlink("/dev/zero", path) }, "config.toml: isn't a regular file (a folder, a pipe or a device stands there; move it away, or name a file)"},
		{"too large", write(bytes.Repeat([]byte("#\n"), maxFileSize/2+1)), "config.toml: is larger than 4194304 bytes"},
		{"Latin-1", write([]byte("# \uFFFD is fine\n# \xfc isn't\n")), "config.toml:2: isn't UTF-8 (save the file in UTF-8)"},
		{"UTF-16", write([]byte("\xff\xfe#\x00")), "config.toml:1: isn't UTF-8 (save the file in UTF-8)"},
		{"nothing but brackets", write(append([]byte("a ="), bytes.Repeat([]byte("["), maxFileSize-10)...)), "config.toml:1: nested more than 32 levels deep"},
		{"nothing but braces", write(append([]byte("a ="), bytes.Repeat([]byte("{a="), maxFileSize/3-10)...)), "config.toml:1: nested more than 32 levels deep"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := tt.make("config.toml"); err != nil {
				t.Fatal(err)
			}
			if _, err := Load("config.toml", Checks{}); err == nil || told(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestGreatestFile(t *testing.T) {
	text := minimal + "hostnames = [\"www.corp.example.com\"]\n"
	unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(text + strings.Repeat("#", maxFileSize-len(text)))}}})
	if _, err := Load("config.toml", Checks{}); err != nil {
		t.Error(err)
	}
}

func TestDropInFolderIsAFile(t *testing.T) {
	unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(minimal)}, {Name: "conf.d"}}})
	if _, err := Load("config.toml", Checks{}); err == nil || told(err) != "conf.d: can't be read: not a directory (a file stands where a folder should be; move it away)" {
		t.Errorf("got %v", err)
	}
}

// TestStateDirRefused refuses what no folder can be made of, or no line be written of.
func TestStateDirRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{file: "is, or leads through, a file (name a folder; ", file + "/below": "is, or leads through, a file (",
		"/srv/a\nb": "holds a control character (such as a line break; "} {
		text := fmt.Sprintf("state_dir = %q\n", name) + minimal
		unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(text)}}})
		if _, err := Load("config.toml", Checks{}); err == nil || !strings.Contains(told(err), want) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestLimitOfHostnames(t *testing.T) {
	var names []string
	for i := range 101 {
		names = append(names, fmt.Sprintf("%q", fmt.Sprintf("h%d.corp.example.com", i%100)))
	}
	text := minimal + "[[certificate]]\nname = \"many\"\nhostnames = [" + strings.Join(names, ", ") + "]\n"
	unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(text)}}})
	config, err := Load("config.toml", Checks{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(config.Certificates[0].Hostnames); n != 100 {
		t.Errorf("got %d hostnames", n)
	}
}

func TestLongestHostname(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := strings.Join([]string{label, label, label, strings.Repeat("a", dnschallenge.MaxHostname-3*64)}, ".")
	if got, err := normalHostname("*." + longest + "."); err != nil || got != "*."+longest {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := normalHostname(longest + "a"); err == nil {
		t.Error("a hostname without room for _acme-challenge was accepted")
	}
}

func TestDidYouMean(t *testing.T) {
	known := tags(reflect.TypeFor[rawConfig]())
	for unknown, want := range map[string]string{"hostname": "hostnames", "HOSTNAMES": "hostnames", "ac": "ca", "certificats": "certificate",
		"concurency": "concurrency", "x": "", "notify": "", strings.Repeat("hostnames", 1000): ""} {
		got := strings.TrimSuffix(strings.TrimPrefix(suggest.DidYouMean(unknown, known), "did you mean "), "?")
		if got != want {
			t.Errorf("%.20q: got %q, want %q", unknown, got, want)
		}
	}
	if !slices.Contains(known, "state_dir") {
		t.Errorf("tags are %v", known)
	}
}

func BenchmarkLoad(b *testing.B) {
	var text strings.Builder
	text.WriteString(minimal + "hostnames = [\n")
	const count = 20_000
	for i := range count {
		fmt.Fprintf(&text, "  \"Host%d.Corp.Example.com.\",\n", i)
	}
	text.WriteString("]\n[[output]]\ndir = \"/etc/ssl/{name}\"\n[[output]]\ndir = \"/etc/other/{name}\"\n")
	path := filepath.Join(b.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text.String()), fs.FileMode(0o600)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		config, err := Load(path, building(Checks{}, new(deploy.Outputs)))
		if err != nil || len(config.Certificates) != count {
			b.Fatalf("got %v", err)
		}
	}
}
