//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/rogpeppe/go-internal/txtar"
)

type object = map[string]any

// everyKey says for each key of the configuration another value than that of the example, and where in the running daemon it
// takes effect. In a key, a number is the place in an array of tables.
var everyKey = []struct {
	key    string
	value  any
	effect string // the beginning of a fact that changes; see facts
	before object // other keys, changed beforehand; nil removes one
	beside object // other keys, changed with it
}{
	{key: "hostnames", value: []string{"www.corp.example.com", "ftp.corp.example.com"}, effect: "certificate ftp.corp.example.com"},
	{key: "schedule", value: "*/7 * * * *", effect: "schedule"},
	{key: "concurrency", value: 3, effect: "workers"},
	{key: "concurrency", value: 4, effect: "issuer private .Concurrency"},
	{key: "renewal.window", value: "03:00-05:00", effect: "window"},
	{key: "renewal.emergency", value: "80h", effect: "emergency"},
	{key: "defaults.ca", value: []string{"private"}, effect: "certificate www.corp.example.com .CAs"},
	{key: "defaults.key_type", value: "rsa-2048", effect: "certificate www.corp.example.com .KeyType"},
	{key: "defaults.profile", value: "tlsserver", effect: "certificate www.corp.example.com .Profile"},
	{key: "resolvers.public", value: []string{"192.0.2.54"}, effect: "resolvers"},
	{key: "log.level", value: "error", effect: "log enabled"},
	{key: "log.format", value: "json", effect: "log handler"},

	{key: "ca.letsencrypt.directory", value: "letsencrypt-staging", effect: "issuer letsencrypt .Directory"},
	{key: "ca.private.staging", value: "https://ca.corp.example.com/other", effect: "CA private .Staging"},
	{key: "ca.letsencrypt.email", value: "other@corp.example.com", effect: "issuer letsencrypt .Email"},
	{key: "ca.letsencrypt.profile", value: "classic", effect: "issuer letsencrypt .Profile"},
	{key: "ca.letsencrypt.preferred_chain", value: "Other Root", effect: "issuer letsencrypt .PreferredChain"},
	{key: "ca.letsencrypt.challenge", value: []string{"dns-01"}, effect: "issuer letsencrypt .Challenges"},
	{key: "ca.letsencrypt.hosts", value: []string{"other.example.net"}, effect: "issuer letsencrypt .Hosts"},
	{key: "ca.private.roots", value: []string{"private-ca.pem", "private-ca.pem"}, effect: "issuer private .Roots"},
	{key: "ca.private.eab.kid", value: "kid-2", effect: "issuer private .EAB"},
	{key: "ca.private.eab.hmac_key", value: "YW5vdGhlcg", effect: "issuer private .EAB"},
	{key: "ca.private.limits.orders", value: "7 per 1h", effect: "CA private .limits"},
	{key: "ca.private.limits.certificates_per_domain", value: "7 per 1h", effect: "CA private .limits"},
	{key: "ca.private.limits.certificates_per_set", value: "7 per 1h", effect: "CA private .limits"},
	{key: "ca.private.limits.failed_validations", value: "7 per 1h", effect: "CA private .limits"},
	{key: "ca.private.limits.free_renewals", value: false, effect: "CA private .limits"},

	{key: "provider.bind.type", value: "manual", effect: "provider bind .Client", beside: object{"provider.bind": object{"type": "manual", "zones": []string{"corp.example.com"}}}},
	{key: "provider.bind.server", value: "ns9.corp.example.com", effect: "provider bind .Servers"},
	{key: "provider.bind.servers", value: []string{"ns8.corp.example.com"}, effect: "provider bind .Client", beside: object{"provider.bind.server": nil}},
	{key: "provider.bind.key_file", value: "other.key", effect: "provider bind .Key"},
	{key: "provider.bind.key_name", value: "other", effect: "provider bind .Key", before: inlineKey()},
	{key: "provider.bind.key_alg", value: "hmac-sha512", effect: "provider bind .Client", before: inlineKey()},
	{key: "provider.bind.key", value: "b3RoZXI=", effect: "provider bind .Key", before: inlineKey()},
	{key: "provider.bind.zones", value: []string{"corp.example.com", "corp.example.org"}, effect: "provider bind .Zones"},
	{key: "provider.bind.nameservers", value: []string{"192.0.2.1", "192.0.2.2"}, effect: "provider bind .Nameservers"},
	{key: "provider.bind.check", value: "primary", effect: "provider bind .Check"},
	{key: "provider.bind.min_nameservers", value: 1, effect: "provider bind .MinNameservers"},
	{key: "provider.bind.settle", value: false, effect: "provider bind .Settle"},
	{key: "provider.bind.propagation_timeout", value: "3m", effect: "provider bind .PropagationTimeout"},
	{key: "provider.bind.ttl", value: "90s", effect: "provider bind .TTL"},
	{key: "provider.bind.timeout", value: "7s", effect: "provider bind .Client"},
	{key: "provider.cloudflare.api_token", value: strings.Repeat("b", 40), effect: "provider cloudflare .Client"},
	{key: "provider.cloudflare.zone_token", value: strings.Repeat("b", 40), effect: "provider cloudflare .Client"},
	{key: "provider.ad.server", value: "dc9.ad.example.com", effect: "provider ad .Servers"},
	{key: "provider.ad.gss", value: false, effect: "provider ad .Client", before: object{"provider.ad.keytab": nil}},
	{key: "provider.ad.keytab", value: "other.keytab", effect: "provider ad .Client"},
	{key: "provider.ad.udp", value: true, effect: "provider ad .Client"},
	{key: "provider.ad.args", value: []string{"-6"}, effect: "provider ad .Client"},
	{key: "provider.ad.command", value: "/bin/false", effect: "provider ad .Client"},
	{key: "provider.ad.env", value: []string{"AUTOCERTD_TEST"}, effect: "provider ad .Client"},
	{key: "provider.ad.timeout", value: "16s", effect: "provider ad .Timeout"},
	{key: "provider.own.command", value: []string{"/bin/false"}, effect: "provider own .Client"},
	{key: "provider.own.options.account", value: "mail", effect: "provider own .Client"},
	{key: "provider.own.options.token", value: "other", effect: "provider own .Client"},
	{key: "provider.own.env", value: []string{"AUTOCERTD_TEST"}, effect: "provider own .Client"},
	{key: "provider.own.timeout", value: "31s", effect: "provider own .Timeout"},
	{key: "provider.desec.token", value: "other", effect: "provider desec .Client"},

	{key: "certificate.0.name", value: "other", effect: "certificate other"},
	{key: "certificate.0.hostnames", value: []string{"corp.example.com"}, effect: "certificate wildcard .Hostnames"},
	{key: "certificate.0.ca", value: []string{"private"}, effect: "certificate wildcard .CAs"},
	{key: "certificate.0.key_type", value: "rsa-4096", effect: "certificate wildcard .KeyType"},
	{key: "certificate.0.profile", value: "tlsserver", effect: "certificate wildcard .Profile"},
	{key: "certificate.0.reuse_key", value: false, effect: "certificate wildcard .ReuseKey"},
	{key: "certificate.1.csr", value: "other.csr", effect: "certificate appliance .CSRFile"},

	{key: "output.0.match", value: []string{"w*"}, effect: "output 0 .Match"},
	{key: "output.0.dir", value: "/etc/ssl/other/{name}", effect: "output 0 .Dir"},
	{key: "output.0.format", value: "combined", effect: "output 0 .Format", before: object{"output.0.match": []string{"wildcard"}}},
	{key: "output.0.owner", value: "4711", effect: "output 0 .Owner"},
	{key: "output.0.group", value: "4711", effect: "output 0 .Group"},
	{key: "output.0.mode", value: "0600", effect: "output 0 .Mode"},
	{key: "output.0.reload", value: []string{"other.service"}, effect: "output 0 .Reload"},
	{key: "output.0.run", value: [][]string{{"/bin/true"}}, effect: "output 0 .Run"},
	{key: "output.1.file", value: "{name}.both.pem", effect: "output 1 .File"},
	{key: "output.1.order", value: "key-first", effect: "output 1 .KeyFirst"},
}

// toldKeys are those that a running daemon can't take over, with what it says.
var toldKeys = []struct {
	key   string
	value any
	told  string
}{
	{"state_dir", "/srv/other", "state_dir can't change while the daemon runs"},
	{"ca.letsencrypt.accept_terms", false, "ca.letsencrypt.accept_terms: the CA's terms of service aren't accepted"},
}

func inlineKey() object {
	return object{"provider.bind.key_file": nil, "provider.bind.key_name": "inline", "provider.bind.key_alg": "hmac-sha256", "provider.bind.key": "c2VjcmV0"}
}

// everyFile says what stands in the files that the configuration names, and where another content takes effect.
var everyFile = []struct{ file, content, effect string }{
	{"tsig.key", "key \"of-the-file\" { algorithm hmac-sha256; secret \"b3RoZXI=\"; };\n", "provider bind .Client"},
	{"cloudflare.token", strings.Repeat("c", 40) + "\n", "provider cloudflare .Client"},
	{"eab-hmac-key", "YW5vdGhlcg\n", "issuer private .EAB"},
	{"my-dns-token", "changed\n", "provider own .Client"},
	{"desec", "changed\n", "provider desec .Client"},
	{"private-ca.pem", "", "issuer private .Roots"}, // the other root
	{"appliance.csr", "", "certificate appliance .CSR"},
}

// TestEveryKey changes each key of the configuration, and each file that it names, under a daemon: it takes effect, and the
// log names what changed; or it is told. The example has every key, which a test of internal/config makes sure of.
func TestEveryKey(t *testing.T) {
	w := newKeyWorld(t)
	missing := map[string]bool{}
	for _, key := range w.all {
		missing[anyOf(key)] = true
	}
	for _, tt := range everyKey {
		t.Run(tt.key, func(t *testing.T) {
			w.take(t, tt.before, "")
			before := w.facts()
			changes := object{tt.key: tt.value}
			maps.Copy(changes, tt.before)
			maps.Copy(changes, tt.beside)
			changes[tt.key] = tt.value
			told := w.take(t, changes, "")
			if !strings.Contains(told, "changed=") && !strings.Contains(told, "added=") {
				t.Errorf("the log doesn't name what changed: %s", told)
			}
			w.changed(t, before, tt.effect)
		})
		delete(missing, anyOf(tt.key))
	}
	for _, tt := range toldKeys {
		t.Run(tt.key, func(t *testing.T) {
			w.take(t, nil, "")
			before := w.facts()
			w.take(t, object{tt.key: tt.value}, tt.told)
			if !maps.Equal(before, w.facts()) {
				t.Error("something changed although it was refused")
			}
		})
		delete(missing, anyOf(tt.key))
	}
	for key := range missing {
		t.Errorf("no row says what becomes of %s while the daemon runs", key)
	}
	for _, tt := range everyFile {
		t.Run(tt.file, func(t *testing.T) {
			w.take(t, nil, "")
			before := w.facts()
			if tt.content == "" {
				tt.content = w.read(t, "other-"+tt.file)
			}
			good := w.read(t, tt.file)
			w.write(t, tt.file, tt.content)
			if !w.daemon.reloader.compare(t.Context()) {
				t.Fatal("it isn't noticed")
			}
			w.changed(t, before, tt.effect)
			w.write(t, tt.file, good)
		})
	}
	w.take(t, nil, "")
	if left := len(w.daemon.program.retired); left > 0 {
		t.Errorf("%d builds are kept that nothing uses", left)
	}
}

// keyWorld is a daemon that doesn't run, with the example's configuration.
type keyWorld struct {
	dir    string
	base   object
	all    []string // the keys of the example
	daemon *daemonProcess
	log    bytes.Buffer
}

func newKeyWorld(t *testing.T) *keyWorld {
	t.Helper()
	w := &keyWorld{dir: t.TempDir()}
	example, err := os.ReadFile("../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^#(\[|[a-z_]+ *=)`).ReplaceAllString(string(example), "$1")
	if _, err := toml.Decode(text, &w.base); err != nil {
		t.Fatal(err)
	}
	w.files(t)
	t.Setenv("CREDENTIALS_DIRECTORY", w.dir)
	t.Setenv("AUTOCERTD_TEST", "set")
	t.Setenv("CLOUDFLARE_ZONE_TOKEN", strings.Repeat("a", 40))
	w.all = leaves(w.base, "")
	for key, value := range (object{"state_dir": w.dir + "/state", "schedule": nil, "renewal.window": nil, "provider.bind.servers": nil, "provider.bind.key_name": nil, "provider.bind.key_alg": nil,
		"provider.bind.key": nil, "provider.bind.key_file": "tsig.key", "provider.cloudflare.api_token": object{"file": "cloudflare.token"},
		"provider.ad.keytab": "krb5.keytab", "provider.ad.command": "/bin/true", "provider.own.command": []string{"/bin/true"}}) {
		w.base = with(w.base, key, value)
	}
	w.save(t, nil)
	s, err := openSession(w.path(), "autocertd run", writes)
	if err != nil {
		t.Fatal(err)
	}
	if w.daemon, err = newDaemon(s, nil); err != nil {
		t.Fatal(err)
	}
	w.daemon.reloader.logger = slog.New(slog.NewTextHandler(&w.log, nil))
	t.Cleanup(func() {
		if err := w.daemon.program.close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *keyWorld) path() string { return filepath.Join(w.dir, "config.toml") }

// files writes what the configuration names.
func (w *keyWorld) files(t *testing.T) {
	t.Helper()
	for name, text := range map[string]string{
		"tsig.key":         "key \"of-the-file\" { algorithm hmac-sha256; secret \"c2VjcmV0\"; };\n",
		"other.key":        "key \"of-the-other\" { algorithm hmac-sha256; secret \"c2VjcmV0\"; };\n",
		"cloudflare.token": strings.Repeat("a", 40), "eab-hmac-key": "c2VjcmV0", "my-dns-token": "secret", "desec": "secret", "tsig-key": "c2VjcmV0",
		"krb5.keytab": "keytab", "other.keytab": "keytab"} {
		w.write(t, name, text)
	}
	testdata := func(archive, name string) string {
		a, err := txtar.ParseFile("../../internal/config/testdata/" + archive + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Files[slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name })].Data)
	}
	root, csr := testdata("private-names", "ca.pem"), testdata("csr", "good.csr")
	w.write(t, "private-ca.pem", root)
	w.write(t, "other-private-ca.pem", root+root)
	w.write(t, "appliance.csr", csr)
	w.write(t, "other.csr", csr)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"second.corp.example.com"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "other-appliance.csr", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: second})))
}

func (w *keyWorld) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *keyWorld) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// save writes the configuration with changes.
func (w *keyWorld) save(t *testing.T, changes object) {
	t.Helper()
	doc := w.base
	for key, value := range changes {
		doc = with(doc, key, value)
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(doc); err != nil {
		t.Fatal(err)
	}
	w.write(t, "config.toml", text.String())
}

// take has the daemon take the configuration over with changes, which it must refuse with words if there are some. It
// returns what the daemon logs.
func (w *keyWorld) take(t *testing.T, changes object, refused string) string {
	t.Helper()
	w.save(t, changes)
	w.log.Reset()
	w.daemon.reloader.reload(t.Context(), "test")
	if told := w.daemon.reporter.health.now.ConfigError; refused == "" && told != "" || refused != "" && !strings.Contains(told, refused) {
		t.Fatalf("the daemon says %q of the configuration", told)
	}
	if refused != "" && !strings.Contains(w.log.String(), "configuration not taken over") {
		t.Errorf("the log has %s", w.log.String())
	}
	return w.log.String()
}

// changed fails unless an effect is among what changed.
func (w *keyWorld) changed(t *testing.T, before map[string]string, effect string) {
	t.Helper()
	after, found := w.facts(), []string{}
	for fact := range maps.Keys(after) {
		if before[fact] != after[fact] {
			found = append(found, fact)
		}
	}
	for fact := range before {
		if _, ok := after[fact]; !ok {
			found = append(found, fact)
		}
	}
	slices.Sort(found)
	if !slices.ContainsFunc(found, func(fact string) bool { return strings.HasPrefix(fact, effect) }) {
		t.Errorf("what changed is %q, and not %q", found[:min(len(found), 20)], effect)
	}
}

// facts reads the values that the parts of the daemon hold, whatever the configuration says.
func (w *keyWorld) facts() map[string]string {
	d, ctx := w.daemon, context.Background()
	facts := map[string]string{}
	note := func(name string, v reflect.Value) { dump(v, name+" ", facts, map[uintptr]bool{}) }
	s := reflect.ValueOf(d.scheduler).Elem()
	note("schedule", s.FieldByName("schedule"))
	note("workers", s.FieldByName("queue").Elem().FieldByName("places"))
	h := *d.program.live.current.Load()
	facts["log handler"] = fmt.Sprintf("%T", h.(cureHandler).Handler)
	facts["log enabled"] = fmt.Sprint(h.Enabled(ctx, slog.LevelDebug), h.Enabled(ctx, slog.LevelInfo), h.Enabled(ctx, slog.LevelError))
	now := d.program.current.Load().snapshot
	snapshot := reflect.ValueOf(d.program.manager).Elem().FieldByName("snapshot").FieldByName("v")
	if snapshot.Pointer() != reflect.ValueOf(now).Pointer() {
		panic("the manager goes by another snapshot")
	}
	note("window", reflect.ValueOf(now.Window))
	note("emergency", reflect.ValueOf(now.Emergency))
	for name, iss := range now.Issuers {
		note("issuer "+name, reflect.ValueOf(iss).Elem().FieldByName("cfg"))
	}
	for name, ca := range now.CAs {
		note("CA "+name, reflect.ValueOf(ca))
	}
	for name, c := range now.Certificates {
		note("certificate "+name, reflect.ValueOf(c))
	}
	for i, o := range now.Outputs.List {
		note("output "+strconv.Itoa(i), reflect.ValueOf(o))
	}
	table := reflect.ValueOf(now.Solver).Elem().FieldByName("began").Elem()
	note("resolvers", table.FieldByName("asker").Elem().FieldByName("resolving"))
	for i := range table.FieldByName("providers").Len() {
		p := table.FieldByName("providers").Index(i)
		note("provider "+p.FieldByName("Name").String(), p)
	}
	return facts
}

// dump notes every plain value that can be reached, secrets too, by its way there.
func dump(v reflect.Value, way string, facts map[string]string, seen map[uintptr]bool) {
	if v.IsValid() && (v.Type().PkgPath() == "sync" || strings.HasPrefix(way, "issuer") && slices.Contains([]string{"Storage", "Solver", "Logger", "Transport"}, way[strings.LastIndexByte(way, '.')+1:])) {
		return
	}
	switch v.Kind() {
	case reflect.Invalid, reflect.Chan, reflect.Func, reflect.UnsafePointer:
	case reflect.Pointer:
		if !v.IsNil() && !seen[v.Pointer()] && v.Type() != reflect.TypeFor[*slog.Logger]() {
			seen[v.Pointer()] = true
			dump(v.Elem(), way, facts, seen)
			delete(seen, v.Pointer())
		}
	case reflect.Interface:
		if !v.IsNil() {
			facts[way+"type"] = v.Elem().Type().String()
			dump(v.Elem(), way, facts, seen)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.Anonymous {
				dump(v.Field(i), way, facts, seen)
			} else {
				dump(v.Field(i), way+"."+field.Name, facts, seen)
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			dump(v.MapIndex(key), fmt.Sprintf("%s[%s]", way, key), facts, seen)
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
			facts[way] = hex.EncodeToString(v.Bytes())
			return
		}
		facts[way+"#"] = strconv.Itoa(v.Len())
		for i := range v.Len() {
			dump(v.Index(i), fmt.Sprintf("%s[%d]", way, i), facts, seen)
		}
	default:
		facts[way] = fmt.Sprint(v)
	}
}

// leaves returns the keys of a document. A secret's table is one value.
func leaves(doc object, prefix string) (keys []string) {
	for name, value := range doc {
		key := prefix + name
		switch value := value.(type) {
		case object:
			if len(value) == 1 && (value["file"] != nil || value["env"] != nil || value["credential"] != nil) {
				keys = append(keys, key)
			} else {
				keys = append(keys, leaves(value, key+".")...)
			}
		case []object:
			for i, entry := range value {
				keys = append(keys, leaves(entry, fmt.Sprintf("%s.%d.", key, i))...)
			}
		default:
			keys = append(keys, key)
		}
	}
	return keys
}

// anyOf is a key without the names of CAs and the places in arrays: one of a kind is enough. The keys that all providers have
// are those of the first.
func anyOf(key string) string {
	key = regexp.MustCompile(`^ca\.\w+\.|\.\d+\.`).ReplaceAllStringFunc(key, func(part string) string {
		if strings.HasPrefix(part, "ca.") {
			return "ca."
		}
		return "."
	})
	return regexp.MustCompile(`^provider\.\w+\.(type|zones)$`).ReplaceAllString(key, "provider.$1")
}

// with returns the document with another value at a key, nil for none. The document itself stays.
func with(doc object, key string, value any) object {
	doc = maps.Clone(doc)
	name, rest, deeper := strings.Cut(key, ".")
	if !deeper {
		if value == nil {
			delete(doc, name)
		} else {
			doc[name] = value
		}
		return doc
	}
	switch inner := doc[name].(type) {
	case object:
		doc[name] = with(inner, rest, value)
	case []object:
		place, rest, _ := strings.Cut(rest, ".")
		i, err := strconv.Atoi(place)
		if err != nil {
			panic(errors.Join(err, fmt.Errorf("%s is in an array", key)))
		}
		inner = slices.Clone(inner)
		inner[i] = with(inner[i], rest, value)
		doc[name] = inner
	default:
		doc[name] = with(object{}, rest, value)
	}
	return doc
}
