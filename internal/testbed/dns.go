package testbed

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNSConfig says what the DNS server serves, and who may change it.
type DNSConfig struct {
	Listen string    // default: a free port of 127.0.0.1, for UDP and TCP alike
	Zones  []string  // default: "example.test"
	Keys   []TSIGKey // default: "acme-key"
	// FollowAliases lets answers follow a CNAME from one zone of this server into another. BIND does not; a CA that is
	// pointed at this server needs it to validate such names, since it asks no resolver that would follow.
	FollowAliases bool
	Allow         func(key, name string) bool // may the key change records of the name (lower case, no last dot)? nil: it may
	Log           func(string)                // gets a line per message; nil: no log
}

// DNS is an authoritative server that behaves as BIND does, for everything that a certificate client asks of it. Its
// zones begin with SOA, NS and the address of ns1, and live in memory.
type DNS struct {
	cfg     DNSConfig
	keys    keyring
	addr    string
	servers []*dns.Server
	serving sync.WaitGroup

	mu       sync.Mutex
	zones    []string            // canonical
	records  map[string][]dns.RR // by canonical owner name
	updates  int
	onUpdate func(*dns.Msg) (rcode int, reply bool)
}

// StartDNS starts the server.
func StartDNS(cfg DNSConfig) (*DNS, error) {
	cfg.Listen = cmp.Or(cfg.Listen, "127.0.0.1:0")
	if len(cfg.Zones) == 0 {
		cfg.Zones = []string{"example.test"}
	}
	if len(cfg.Keys) == 0 {
		cfg.Keys = []TSIGKey{{Name: "acme-key"}}
	}
	cfg.Keys = slices.Clone(cfg.Keys)
	d := &DNS{cfg: cfg, keys: keyring{}, records: map[string][]dns.RR{}}
	for i, k := range cfg.Keys {
		cfg.Keys[i] = k.withDefaults()
		d.keys[dns.CanonicalName(k.Name)] = cfg.Keys[i]
	}
	for _, zone := range cfg.Zones {
		zone = dns.CanonicalName(zone)
		d.zones = append(d.zones, zone)
		err := d.Set(
			zone+" 60 IN SOA ns1."+zone+" hostmaster."+zone+" 1 300 60 86400 5",
			zone+" 60 IN NS ns1."+zone,
			"ns1."+zone+" 60 IN A 127.0.0.1")
		if err != nil {
			return nil, fmt.Errorf("start DNS server: %w", err)
		}
	}
	if err := d.listen(); err != nil {
		return nil, fmt.Errorf("start DNS server: %w", err)
	}
	return d, nil
}

// listen takes a TCP port and the UDP port of the same number. When the system chose the first, the second may be
// taken; then it tries again.
func (d *DNS) listen() error {
	var tcp net.Listener
	var udp net.PacketConn
	for attempt := 1; ; attempt++ {
		var err error
		if tcp, err = net.Listen("tcp", d.cfg.Listen); err != nil {
			return err
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		tcp.Close()
		if attempt == 10 || !strings.HasSuffix(d.cfg.Listen, ":0") {
			return err
		}
	}
	d.addr = tcp.Addr().String()
	for _, s := range []*dns.Server{{Listener: tcp}, {PacketConn: udp}} {
		s.Handler, s.TsigProvider, s.MsgAcceptFunc = dns.HandlerFunc(d.serve), d.keys, acceptUpdates
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		d.servers = append(d.servers, s)
		d.serving.Go(func() { s.ActivateAndServe() })
		<-started
	}
	return nil
}

// acceptUpdates lets opcode UPDATE pass, which the library refuses by default.
func acceptUpdates(h dns.Header) dns.MsgAcceptAction {
	const opcodeMask = 0xF
	if query := h.Bits&(1<<15) == 0; query && int(h.Bits>>11)&opcodeMask == dns.OpcodeUpdate {
		return dns.MsgAccept
	}
	return dns.DefaultMsgAcceptFunc(h)
}

// Addr is the server's host:port.
func (d *DNS) Addr() string { return d.addr }

// Key returns the key of that name, or an empty one.
func (d *DNS) Key(name string) TSIGKey { return d.keys[dns.CanonicalName(name)] }

// TXT returns the TXT values at the name itself; aliases are not followed.
func (d *DNS) TXT(name string) []string { return d.All()[plainName(name)] }

// All returns every TXT record: the lower-case name without the last dot, and its values.
func (d *DNS) All() map[string][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]string{}
	for name, rrs := range d.records {
		for _, rr := range rrs {
			if txt, ok := rr.(*dns.TXT); ok {
				all[plainName(name)] = append(all[plainName(name)], strings.Join(txt.Txt, ""))
			}
		}
	}
	return all
}

// Set adds records as zone files spell them, with absolute names, whatever else is there.
func (d *DNS) Set(rr ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, text := range rr {
		record, err := dns.NewRR(text)
		if err == nil && record == nil {
			err = errors.New("it is empty")
		}
		if err != nil {
			return fmt.Errorf("add record %q: %w", text, err)
		}
		name := dns.CanonicalName(record.Header().Name)
		d.records[name] = append(d.records[name], record)
	}
	return nil
}

// Updates says how many UPDATE messages arrived, applied or refused.
func (d *DNS) Updates() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.updates
}

// OnUpdate injects faults: f sees every update that is properly signed, before it takes effect. With rcode 0 it takes
// effect; any other rcode is the answer, and nothing changes. Without reply the client hears nothing (by TCP the
// connection ends), so 0 and false is an update that took effect although its reply was lost. f may be called from
// several goroutines at once; nil ends the injection.
func (d *DNS) OnUpdate(f func(*dns.Msg) (rcode int, reply bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onUpdate = f
}

// Close ends the server and waits for what it is doing.
func (d *DNS) Close() error {
	var errs []error
	for _, s := range d.servers {
		errs = append(errs, s.Shutdown())
	}
	d.serving.Wait()
	return errors.Join(errs...)
}

// plainName is the form in which this package hands out names.
func plainName(name string) string { return strings.TrimSuffix(strings.ToLower(name), ".") }
