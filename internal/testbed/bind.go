//go:build linux

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// BINDConfig says which servers StartBIND starts. Dir is required; all else has a default.
type BINDConfig struct {
	Dir         string      // each start makes a new folder in it
	Zones       []BINDZone  // default: "example.test"
	Keys        []TSIGKey   // default: "acme-key"
	Secondaries []Secondary // each follows all zones of the primary
	IPv6        bool        // every server listens on [::1] too, and its name has an AAAA record
	Log         io.Writer   // gets a copy of what every named logs
}

// BINDZone is a zone of the primary, open to dynamic updates.
type BINDZone struct {
	Name    string
	Policy  []string // lines of update-policy without the semicolon; default: every key may write TXT anywhere in the zone
	Records []string // lines of the zone file, after SOA, NS and the addresses of ns1, ns2, ...
	Options []string // lines of the zone statement, such as "dnssec-policy default;"
}

// Secondary says how a secondary learns of changes. The zero value is told at once by NOTIFY.
type Secondary struct {
	Notify bool          // told by NOTIFY, whatever Poll says
	Poll   time.Duration // without Notify: nobody tells it, it asks for the SOA this often (whole seconds)
}

func (s Secondary) prompt() bool { return s.Notify || s.Poll == 0 }

// BIND is a primary and its secondaries, each a named process of its own.
type BIND struct {
	cfg     BINDConfig
	dir     string
	servers []*namedServer // the primary first

	mu      sync.Mutex
	updates int // UPDATE messages of primaries that were killed
}

// startAttempts is how often StartBIND chooses new ports when somebody else was faster.
const startAttempts = 5

// StartBIND starts the servers and returns when each answers for every zone; ctx limits the start only. The processes
// run as the caller, on 127.0.0.1 and ports of their own, and die with the caller. Debian's AppArmor profile, where it is
// enforced, keeps named out of temporary folders; the error then shows "permission denied".
func StartBIND(ctx context.Context, cfg BINDConfig) (*BIND, error) {
	path, err := findNamed()
	if err != nil {
		return nil, err
	}
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b, err := onFreePorts(func() (*BIND, error) { return startBIND(ctx, path, cfg) })
	if err != nil {
		return nil, fmt.Errorf("start BIND in %s: %w", cfg.Dir, err)
	}
	return b, nil
}

// onFreePorts starts something again, which chooses other ports then, while somebody else was faster.
func onFreePorts[T any](start func() (T, error)) (started T, err error) {
	for range startAttempts {
		if started, err = start(); !errors.Is(err, errPortTaken) {
			break
		}
	}
	return started, err
}

func findNamed() (string, error) {
	path, err := findProgram("named")
	if err != nil {
		return "", fmt.Errorf("start BIND: no named; install Debian's bind9 (make test does it): %w", exec.ErrNotFound)
	}
	return path, nil
}

func (c BINDConfig) withDefaults() (BINDConfig, error) {
	if c.Dir == "" {
		return c, errors.New("start BIND: Dir is empty")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("start BIND: %w", err)
	}
	c.Dir = dir
	c.Zones, c.Keys = slices.Clone(c.Zones), slices.Clone(c.Keys)
	if len(c.Zones) == 0 {
		c.Zones = []BINDZone{{Name: "example.test"}}
	}
	if len(c.Keys) == 0 {
		c.Keys = []TSIGKey{{Name: "acme-key"}}
	}
	for i := range c.Keys {
		c.Keys[i] = c.Keys[i].withDefaults()
	}
	for i := range c.Zones {
		z := &c.Zones[i]
		z.Name = strings.TrimSuffix(z.Name, ".")
		if len(z.Policy) > 0 {
			continue
		}
		for _, k := range c.Keys {
			z.Policy = append(z.Policy, fmt.Sprintf("grant %q subdomain %s. TXT", k.Name, z.Name))
		}
	}
	if c.Log != nil {
		c.Log = &lockedWriter{w: c.Log}
	}
	return c, nil
}

func startBIND(ctx context.Context, path string, cfg BINDConfig) (*BIND, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "bind-")
	if err != nil {
		return nil, err
	}
	b := &BIND{cfg: cfg, dir: dir}
	for i := range 1 + len(cfg.Secondaries) {
		s, err := newNamedServer(path, filepath.Join(dir, fmt.Sprintf("ns%d", i+1)), cfg)
		if err != nil {
			return nil, err
		}
		b.servers = append(b.servers, s)
	}
	if err := writeBINDFiles(b); err != nil {
		return nil, err
	}
	for i := range b.servers {
		if err := b.Restart(ctx, i); err != nil {
			b.Close()
			return nil, err
		}
	}
	return b, nil
}

// Addr is the primary's host:port, for UDP and TCP.
func (b *BIND) Addr() string { return b.servers[0].addr() }

// Servers are the host:port of all servers, the primary first.
func (b *BIND) Servers() []string {
	addrs := make([]string, len(b.servers))
	for i, s := range b.servers {
		addrs[i] = s.addr()
	}
	return addrs
}

// Key returns the key of that name, or an empty one.
func (b *BIND) Key(name string) TSIGKey {
	for _, k := range b.cfg.Keys {
		if k.Name == name {
			return k
		}
	}
	return TSIGKey{}
}

// KeyFile is the path of a file that holds the key as tsig-keygen prints it, with mode 0600.
func (b *BIND) KeyFile(name string) string { return filepath.Join(b.dir, name+".key") }

// UpdateMessages says how many UPDATE messages reached the primary so far, applied or refused, or -1 while it does not
// answer. The number is the opcode counter of named's own statistics: it counts messages, not records or connections, and
// grows before the reply is sent. Restarts are allowed for; messages that arrive while Kill runs may be missed.
func (b *BIND) UpdateMessages() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.servers[0].running() {
		return b.updates
	}
	n, err := b.servers[0].updateMessages()
	if err != nil {
		return -1
	}
	return b.updates + n
}

// TXT transfers the zone from the primary (RFC 5936) and returns every TXT record: the lower-case name without the last
// dot, and its values.
func (b *BIND) TXT(ctx context.Context, zone string) (map[string][]string, error) {
	return TXT(ctx, b.Addr(), zone)
}

// TXT is BIND.TXT for any server that lets the zone be transferred.
func TXT(ctx context.Context, addr, zone string) (map[string][]string, error) {
	fail := func(err error) (map[string][]string, error) {
		return nil, fmt.Errorf("transfer zone %s from %s: %w", zone, addr, err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	transfer := dns.Transfer{Conn: &dns.Conn{Conn: conn}}
	answers, err := transfer.In(new(dns.Msg).SetAxfr(dns.Fqdn(zone)), addr)
	if err != nil {
		return fail(err)
	}
	values := map[string][]string{}
	for answer := range answers {
		if answer.Error != nil {
			err = errors.Join(answer.Error, ctx.Err())
			continue // until the channel closes, or the sender would wait for ever
		}
		for _, rr := range answer.RR {
			if txt, ok := rr.(*dns.TXT); ok {
				name := plainName(txt.Hdr.Name)
				values[name] = append(values[name], strings.Join(txt.Txt, ""))
			}
		}
	}
	if err != nil {
		return fail(err)
	}
	return values, nil
}

// Stop freezes server i: it keeps its port and says nothing until Continue.
func (b *BIND) Stop(i int) error { return b.servers[i].stop() }

// Continue wakes server i after Stop.
func (b *BIND) Continue(i int) error { return b.servers[i].resume() }

// Kill ends server i at once, as a crash would.
func (b *BIND) Kill(i int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i == 0 && b.servers[0].running() {
		if n, err := b.servers[0].updateMessages(); err == nil {
			b.updates += n
		}
	}
	return b.servers[i].kill()
}

// Restart starts server i again after Kill, with its old port and data, and returns when it answers for every zone.
func (b *BIND) Restart(ctx context.Context, i int) error { return b.servers[i].start(ctx) }

// Close ends all servers, frozen ones too, and waits for them. The files stay for the owner of Dir to remove.
func (b *BIND) Close() error {
	var errs []error
	for _, s := range b.servers {
		errs = append(errs, s.kill())
	}
	return errors.Join(errs...)
}

// updateMessages reads named's statistics, which name every opcode with the number of messages that came with it.
func (s *namedServer) updateMessages() (int, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/json/v1/server", s.StatsPort))
	if err != nil {
		return 0, fmt.Errorf("read the statistics of %s: %w", s.addr(), err)
	}
	defer resp.Body.Close()
	var stats struct{ Opcodes map[string]int }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&stats); err != nil {
		return 0, fmt.Errorf("read the statistics of %s: %w", s.addr(), err)
	}
	n, ok := stats.Opcodes["UPDATE"]
	if !ok {
		return 0, fmt.Errorf("read the statistics of %s: no counter of UPDATE messages", s.addr())
	}
	return n, nil
}
