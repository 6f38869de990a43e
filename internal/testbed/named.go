//go:build linux

package testbed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/template"
)

// NamedConfig is a BIND of the caller's own making: views, signed zones, a resolver.
type NamedConfig struct {
	Dir   string            // each start makes a new folder in it
	Conf  string            // named.conf, a text/template; it has .Dir, .Port (UDP and TCP) and .Data
	Files map[string]string // beside it, by name, templates as well
	Data  any
	Zones []string  // it must answer for these with authority, asked at 127.0.0.1, before StartNamed returns
	Log   io.Writer // gets a copy of what it logs
}

// Named is one named process.
type Named struct{ server *namedServer }

// StartNamed starts a server and returns when it answers at 127.0.0.1; ctx limits the start only. It runs as the caller and
// dies with the caller.
func StartNamed(ctx context.Context, cfg NamedConfig) (*Named, error) {
	path, err := findNamed()
	if err != nil {
		return nil, err
	}
	n, err := onFreePorts(func() (*Named, error) { return startNamed(ctx, path, cfg) })
	if err != nil {
		return nil, fmt.Errorf("start BIND in %s: %w", cfg.Dir, err)
	}
	return n, nil
}

func startNamed(ctx context.Context, path string, cfg NamedConfig) (*Named, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "named-")
	if err != nil {
		return nil, err
	}
	var zones []BINDZone
	for _, z := range cfg.Zones {
		zones = append(zones, BINDZone{Name: z})
	}
	s, err := newNamedServer(path, filepath.Join(dir, "ns"), BINDConfig{Zones: zones, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	data := map[string]any{"Dir": s.Dir, "Port": s.Port, "Data": cfg.Data}
	for name, text := range cfg.Files {
		if err := writeText(filepath.Join(s.Dir, name), text, data); err != nil {
			return nil, err
		}
	}
	if err := writeText(filepath.Join(s.Dir, "named.conf"), cfg.Conf, data); err != nil {
		return nil, err
	}
	return &Named{s}, s.start(ctx)
}

func writeText(path, text string, data any) error {
	t, err := template.New(filepath.Base(path)).Option("missingkey=error").Parse(text)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o600)
}

// Addr is host:port at 127.0.0.1, for UDP and TCP.
func (n *Named) Addr() string { return n.server.addr() }

// Port is the port, for servers that listen on other addresses too.
func (n *Named) Port() int { return n.server.Port }

// Stop freezes the server: it keeps its port and says nothing until Continue.
func (n *Named) Stop() error { return n.server.stop() }

// Continue wakes the server after Stop.
func (n *Named) Continue() error { return n.server.resume() }

// Close ends the server and waits for it.
func (n *Named) Close() error { return n.server.kill() }
