//go:build linux

package testbed

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

// ProductConfig says what a DNS server of another product than BIND serves. Dir is required; all else has a default.
type ProductConfig struct {
	Dir     string    // each start makes a new folder in it
	Zones   []string  // default: "example.test"
	Keys    []TSIGKey // default: "acme-key"; each may write TXT in every zone, and read all
	Names   []string  // Knot alone: where the keys may write, relative to the zone; default: everywhere
	Records []string  // lines of each zone file, after SOA, NS and the address of ns1
	Policy  string    // PowerDNS alone: a Lua script that says which updates it takes; default: none
	Log     io.Writer // gets a copy of what it logs
}

// Product is a server of another product, a process of its own.
type Product struct {
	server *namedServer
	cfg    ProductConfig
	dir    string
}

// StartKnot starts Knot DNS and returns when it answers for every zone; ctx limits the start only. It runs as the caller,
// on 127.0.0.1 and a port of its own, and dies with the caller.
func StartKnot(ctx context.Context, cfg ProductConfig) (*Product, error) {
	return startProduct(ctx, cfg, "knotd", "knot", configureKnot)
}

// StartPowerDNS is StartKnot for PowerDNS, with its SQLite back end.
func StartPowerDNS(ctx context.Context, cfg ProductConfig) (*Product, error) {
	return startProduct(ctx, cfg, "pdns_server", "pdns-server, pdns-backend-sqlite3 and sqlite3", configurePowerDNS)
}

// startProduct finds the program, which the Debian packages have, gives it a folder, and starts it.
func startProduct(ctx context.Context, cfg ProductConfig, program, packages string, configure func(context.Context, *Product) error) (*Product, error) {
	path, err := findProgram(program)
	if err != nil {
		return nil, fmt.Errorf("start %s: install Debian's %s (make test does it): %w", program, packages, err)
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if len(cfg.Zones) == 0 {
		cfg.Zones = []string{"example.test"}
	}
	if len(cfg.Keys) == 0 {
		cfg.Keys = []TSIGKey{{Name: "acme-key"}}
	}
	cfg.Keys = slices.Clone(cfg.Keys)
	for i := range cfg.Keys {
		cfg.Keys[i] = cfg.Keys[i].withDefaults()
	}
	if cfg.Log != nil {
		cfg.Log = &lockedWriter{w: cfg.Log}
	}
	p, err := onFreePorts(func() (*Product, error) {
		p, err := newProduct(cfg, path)
		if err == nil {
			err = configure(ctx, p)
		}
		if err == nil {
			err = p.server.start(ctx)
		}
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", program, cfg.Dir, err)
	}
	return p, nil
}

// findProgram looks in the path and where Debian puts servers.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	return path, err
}

// newProduct makes the folder, with the zone files and key files in it.
func newProduct(cfg ProductConfig, path string) (*Product, error) {
	dir, err := os.MkdirTemp(cfg.Dir, filepath.Base(path)+"-")
	if err != nil {
		return nil, err
	}
	var zones []BINDZone
	for _, z := range cfg.Zones {
		zones = append(zones, BINDZone{Name: z})
	}
	s, err := newNamedServer(path, filepath.Join(dir, "server"), BINDConfig{Zones: zones, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	p := &Product{server: s, cfg: cfg, dir: dir}
	for _, z := range cfg.Zones {
		data := map[string]any{"Names": []string{"ns1"}, "Records": cfg.Records, "IPv6": false}
		if err := writeTemplate(p.zoneFile(z), zoneFile, data); err != nil {
			return nil, err
		}
	}
	for _, k := range cfg.Keys {
		if err := writeKeyFile(p.KeyFile(k.Name), k); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Product) zoneFile(zone string) string { return filepath.Join(p.server.Dir, zone+".zone") }

// Addr is the server's host:port, for UDP and TCP.
func (p *Product) Addr() string { return p.server.addr() }

// Key returns the key of that name, or an empty one.
func (p *Product) Key(name string) TSIGKey {
	for _, k := range p.cfg.Keys {
		if k.Name == name {
			return k
		}
	}
	return TSIGKey{}
}

// KeyFile is the path of a file that holds the key as tsig-keygen prints it, with mode 0600.
func (p *Product) KeyFile(name string) string { return filepath.Join(p.dir, name+".key") }

// TXT is BIND.TXT.
func (p *Product) TXT(ctx context.Context, zone string) (map[string][]string, error) {
	return TXT(ctx, p.Addr(), zone)
}

// Kill ends the server at once, as a crash would.
func (p *Product) Kill() error { return p.server.kill() }

// Restart starts the server again after Kill, with its old port and data.
func (p *Product) Restart(ctx context.Context) error { return p.server.start(ctx) }

// Close ends the server and waits for it.
func (p *Product) Close() error { return p.server.kill() }

// knotConf lets the keys write TXT, and everybody on this machine read all. A single worker is enough, and Knot otherwise
// starts one for each processor.
var knotConf = template.Must(template.New("knot.conf").Parse(`
server:
    rundir: "{{.Dir}}"
    listen: 127.0.0.1@{{.Port}}
    udp-workers: 1
    tcp-workers: 2
    background-workers: 1
database:
    storage: "{{.Dir}}"
    journal-db-max-size: 20M
log:
  - target: stderr
    any: info
key:
{{- range .Keys}}
  - id: "{{.Name}}"
    algorithm: {{.Algorithm}}
    secret: "{{.Secret}}"
{{- end}}
acl:
  - id: write
    key: [{{range $i, $k := .Keys}}{{if $i}}, {{end}}"{{$k.Name}}"{{end}}]
    action: update
    update-type: [TXT]
{{- if .Names}}
    update-owner: name
    update-owner-match: equal
    update-owner-name: [{{range $i, $n := .Names}}{{if $i}}, {{end}}{{$n}}{{end}}]
{{- end}}
  - id: read
    address: 127.0.0.0/8
    action: transfer
zone:
{{- range .Zones}}
  - domain: {{.}}
    storage: "{{$.Dir}}"
    file: "{{.}}.zone"
    acl: [write, read]
    zonefile-sync: -1
    journal-max-usage: 10M
{{- end}}
`))

func configureKnot(_ context.Context, p *Product) error {
	conf := filepath.Join(p.server.Dir, "knot.conf")
	p.server.args = []string{"-c", conf}
	return writeTemplate(conf, knotConf, map[string]any{"Dir": p.server.Dir, "Port": p.server.Port,
		"Keys": p.cfg.Keys, "Names": p.cfg.Names, "Zones": p.cfg.Zones})
}

// powerDNSConf looks at the database for each answer, since a cache would show what was before an update.
var powerDNSConf = template.Must(template.New("pdns.conf").Parse(`
local-address=127.0.0.1
local-port={{.Port}}
reuseport=no
socket-dir={{.Dir}}
launch=gsqlite3
gsqlite3-database={{.Dir}}/pdns.sqlite3
gsqlite3-pragma-synchronous=0
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
allow-axfr-ips=127.0.0.0/8
primary=yes
only-notify=
security-poll-suffix=
guardian=no
daemon=no
disable-syslog=yes
log-timestamp=no
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
receiver-threads=1
distributor-threads=1
{{- if .Policy}}
lua-dnsupdate-policy-script={{.Policy}}
{{- end}}
`))

// powerDNSSchema is where Debian's pdns-backend-sqlite3 has the tables of its database.
const powerDNSSchema = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"

// configurePowerDNS makes the database with the commands that docs/providers.md names.
func configurePowerDNS(ctx context.Context, p *Product) error {
	dir := p.server.Dir
	p.server.args = []string{"--config-dir=" + dir}
	data := map[string]any{"Dir": dir, "Port": p.server.Port, "Policy": ""}
	if p.cfg.Policy != "" {
		script := filepath.Join(dir, "policy.lua")
		if err := os.WriteFile(script, []byte(p.cfg.Policy), 0o600); err != nil {
			return err
		}
		data["Policy"] = script
	}
	if err := writeTemplate(filepath.Join(dir, "pdns.conf"), powerDNSConf, data); err != nil {
		return err
	}
	commands := [][]string{{"sqlite3", filepath.Join(dir, "pdns.sqlite3"), ".read " + powerDNSSchema}}
	pdnsutil := func(args ...string) {
		commands = append(commands, append([]string{"pdnsutil", "--config-dir=" + dir}, args...))
	}
	var keys []string
	for _, k := range p.cfg.Keys {
		keys = append(keys, k.Name)
		pdnsutil("import-tsig-key", k.Name, k.Algorithm, k.Secret)
	}
	for _, z := range p.cfg.Zones {
		pdnsutil("load-zone", z, p.zoneFile(z))
		pdnsutil(append([]string{"set-meta", z, "TSIG-ALLOW-DNSUPDATE"}, keys...)...)
		pdnsutil("set-meta", z, "NOTIFY-DNSUPDATE", "1")
	}
	for _, c := range commands {
		if out, err := exec.CommandContext(ctx, c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c[:min(len(c), 4)], " "), err, out)
		}
	}
	return nil
}
