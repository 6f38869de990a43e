//go:build linux

package testbed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// namedConf is the configuration of one server. It knows nothing outside loopback: no recursion, no trust anchors to
// refresh, no reverse zones, NOTIFY only to those named. Ports are not shared (reuseport), so that a taken one is noticed.
// The default listen queue of 10 overflows when a CA validates in bursts, and each dropped SYN costs a second.
var namedConf = template.Must(template.New("named.conf").Parse(`
options {
	directory "{{.Server.Dir}}";
	pid-file none; lock-file none; session-keyfile "session.key"; managed-keys-directory ".";
	listen-on port {{.Server.Port}} { 127.0.0.1; };
	listen-on-v6 {{if .IPv6}}port {{.Server.Port}} { ::1; }{{else}}{ none; }{{end}};
	reuseport no;
	recursion no; dnssec-validation no; empty-zones-enable no; max-cache-size 8m;
	minimal-responses yes;
	allow-transfer { 127.0.0.0/8; };
	max-journal-size 16m;
	tcp-listen-queue 512; tcp-clients 1000;
	serial-query-rate 1000; startup-notify-rate 1000; notify-delay 0;
	notify explicit; also-notify { {{range .Notify}}127.0.0.1 port {{.}}; {{end}}};
{{- if .Refresh}}
	min-refresh-time {{.Refresh}}; max-refresh-time {{.Refresh}}; min-retry-time {{.Refresh}}; max-retry-time {{.Refresh}};
{{- end}}
};
controls { };
statistics-channels { inet 127.0.0.1 port {{.Server.StatsPort}} allow { 127.0.0.1; }; };
{{- range .Keys}}
key "{{.Name}}" { algorithm {{.Algorithm}}; secret "{{.Secret}}"; };
{{- end}}
{{- range .Zones}}
zone "{{.Name}}" {
	file "{{.Name}}.zone";
{{- if $.Primary}}
	type secondary; primaries { 127.0.0.1 port {{$.Primary}}; };
{{- else}}
	type primary;
	update-policy { {{range .Policy}}{{.}}; {{end}}};
{{- range .Options}}
	{{.}}
{{- end}}
{{- end}}
};
{{- end}}
`))

// zoneFile is a zone before its first update. The SOA minimum keeps the absence of a name from being cached for long.
var zoneFile = template.Must(template.New("zone").Parse(`$TTL 60
@	IN SOA ns1 hostmaster ( 1 300 60 86400 5 )
{{- range .Names}}
@	IN NS {{.}}
{{.}}	IN A 127.0.0.1
{{- if $.IPv6}}
{{.}}	IN AAAA ::1
{{- end}}
{{- end}}
{{- range .Records}}
{{.}}
{{- end}}
`))

// writeBINDFiles writes configurations, zones and key files of all servers.
func writeBINDFiles(b *BIND) error {
	var names []string
	for i := range b.servers {
		names = append(names, fmt.Sprintf("ns%d", i+1))
	}
	for _, z := range b.cfg.Zones {
		path := filepath.Join(b.servers[0].Dir, z.Name+".zone")
		data := map[string]any{"Names": names, "Records": z.Records, "IPv6": b.cfg.IPv6}
		if err := writeTemplate(path, zoneFile, data); err != nil {
			return err
		}
	}
	for _, k := range b.cfg.Keys {
		if err := writeKeyFile(b.KeyFile(k.Name), k); err != nil {
			return err
		}
	}
	for i, s := range b.servers {
		data := map[string]any{"Server": s, "IPv6": b.cfg.IPv6, "Keys": b.cfg.Keys, "Zones": b.cfg.Zones,
			"Primary": 0, "Refresh": 0, "Notify": []int(nil)}
		if i == 0 {
			data["Notify"] = b.notified()
		} else {
			data["Primary"] = b.servers[0].Port
		}
		if i > 0 && !b.cfg.Secondaries[i-1].prompt() {
			data["Refresh"] = max(1, int(b.cfg.Secondaries[i-1].Poll/time.Second))
		}
		if err := writeTemplate(filepath.Join(s.Dir, "named.conf"), namedConf, data); err != nil {
			return err
		}
	}
	return nil
}

// notified are the ports of the secondaries that the primary tells of changes.
func (b *BIND) notified() []int {
	var ports []int
	for i, s := range b.cfg.Secondaries {
		if s.prompt() {
			ports = append(ports, b.servers[i+1].Port)
		}
	}
	return ports
}

func writeTemplate(path string, t *template.Template, data any) error {
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, text.Bytes(), 0o600)
}

// writeKeyFile writes the key as tsig-keygen prints it.
func writeKeyFile(path string, k TSIGKey) error {
	text := fmt.Sprintf("key \"%s\" {\n\talgorithm %s;\n\tsecret \"%s\";\n};\n", k.Name, k.Algorithm, k.Secret)
	return os.WriteFile(path, []byte(text), 0o600)
}
