package zones

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/testbed"
)

// locator returns an Asker that mustn't ask this machine's resolvers.
func locator(t *testing.T, resolvers []string, list ...Provider) *Asker {
	t.Helper()
	s := asking(resolvers, list...)
	s.cfg.System = func() ([]string, error) {
		if len(resolvers) > 0 {
			t.Error("this machine's resolvers were looked for beside those that are configured")
		}
		return nil, errors.New("not here")
	}
	return s
}

// place is a row of a table about locate: where a host's record goes, or which words the error has.
type place struct {
	name, host           string
	provider, zone, want string
	err                  []string
}

func (p place) check(t *testing.T, s *Asker) {
	t.Helper()
	trace, err := s.Locate(t.Context(), "_acme-challenge."+p.host)
	got := [3]string{trace.Provider, trace.Zone, trace.Name()}
	if want := ([3]string{p.provider, p.zone, p.want}); err == nil && got != want {
		t.Errorf("found %+v, want %+v", got, want)
	}
	if (err != nil) != (len(p.err) > 0) {
		t.Errorf("error: %v", err)
	}
	for _, words := range p.err {
		if err != nil && !strings.Contains(said(err), words) {
			t.Errorf("error %q doesn't say %q", err, words)
		}
	}
}

func TestLocate(t *testing.T) {
	long := []string{"_acme-challenge.long.example.test. 60 IN CNAME l0.example.test."}
	for i := range 15 {
		long = append(long, fmt.Sprintf("l%d.example.test. 60 IN CNAME l%d.example.test.", i, i+1))
	}
	ours := startDNS(t, []string{"example.test", "deep.example.test"}, append(long,
		"_acme-challenge.alias.example.test. 60 IN CNAME alias.acme.example.test.",
		"_acme-challenge.upper.example.test. 60 IN CNAME Upper.ACME.Example.Test.",
		"_acme-challenge.far.example.test. 60 IN CNAME far.hop.example.test.",
		"far.hop.example.test. 60 IN CNAME far.other.test.",
		"_acme-challenge.ring.example.test. 60 IN CNAME ring.other.test.",
		"_acme-challenge.abroad.example.test. 60 IN CNAME abroad.foreign.test.",
		"_acme-challenge.through.example.test. 60 IN CNAME through.foreign.test.",
		"_acme-challenge.lost.example.test. 60 IN CNAME lost.nowhere.test.",
		"cut.example.test. 60 IN NS ns.elsewhere.test.")...)
	others := startDNS(t, []string{"other.test"},
		"ring.other.test. 60 IN CNAME _acme-challenge.ring.example.test.")
	foreign := startDNS(t, []string{"foreign.test", "api.test"},
		"through.foreign.test. 60 IN CNAME back.other.test.")
	bind := Provider{Name: "bind", Servers: []string{ours.Addr()}, Zones: []string{"example.test"}}
	deep := Provider{Name: "deep", Servers: []string{ours.Addr()}, Zones: []string{"deep.example.test"}}
	other := Provider{Name: "other", Servers: []string{others.Addr()}, Zones: []string{"other.test"}}
	api := Provider{Name: "api", Zones: []string{"api.test"}}

	tests := []place{
		{name: "a plain host", host: "www.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.www.example.test"},
		{name: "the apex, and its wildcard's name", host: "example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.example.test"},
		{name: "capitals and a dot", host: "WWW.Example.Test.", provider: "bind", zone: "example.test", want: "_acme-challenge.www.example.test"},
		{name: "the longest zone wins", host: "www.deep.example.test", provider: "deep", zone: "deep.example.test", want: "_acme-challenge.www.deep.example.test"},
		{name: "a zone's name inside another word", host: "www.notexample.test", err: []string{"no provider serves _acme-challenge.www.notexample.test", "example.test"}},
		{name: "an alias in the zone", host: "alias.example.test", provider: "bind", zone: "example.test", want: "alias.acme.example.test"},
		{name: "an alias with capitals", host: "upper.example.test", provider: "bind", zone: "example.test", want: "upper.acme.example.test"},
		{name: "two aliases into the zone of another provider", host: "far.example.test", provider: "other", zone: "other.test", want: "far.other.test"},
		{name: "an alias through a foreign zone, which the resolver knows", host: "through.example.test", provider: "other", zone: "other.test", want: "back.other.test"},
		{name: "a zone of an API, which the resolver knows", host: "www.api.test", provider: "api", zone: "api.test", want: "_acme-challenge.www.api.test"},
		{name: "an alias into a zone that nobody serves", host: "abroad.example.test",
			err: []string{"no provider serves _acme-challenge.abroad.example.test -> abroad.foreign.test, which is in zone foreign.test", "other.test"}},
		{name: "an alias into a zone that nobody knows", host: "lost.example.test", err: []string{"no provider serves _acme-challenge.lost.example.test -> lost.nowhere.test"}},
		{name: "aliases in a circle of two servers", host: "ring.example.test",
			err: []string{"_acme-challenge.ring.example.test -> ring.other.test -> _acme-challenge.ring.example.test", "circle"}},
		{name: "too many aliases", host: "long.example.test", err: []string{"more than 10 CNAMEs"}},
		{name: "a part that is delegated", host: "www.cut.example.test", err: []string{"no provider serves _acme-challenge.www.cut.example.test, which is in zone cut.example.test, delegated to other servers"}},
	}
	s := locator(t, []string{foreign.Addr()}, deep, bind, other, api)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, s) })
	}
}

func TestLocateAsksTheRightServers(t *testing.T) {
	ours := startDNS(t, []string{"example.test"})
	others := startDNS(t, []string{"other.test"}, "_acme-challenge.www.other.test. 60 IN CNAME www.foreign.test.",
		"_acme-challenge.delegated.other.test. 60 IN CNAME _acme-challenge.www.example.test.")
	found := place{host: "www.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.www.example.test"}
	tests := []struct {
		place
		servers, zones, resolvers, machine []string
		hostnames                          []string
	}{
		{place: found.named("a lone provider without zones"), servers: []string{ours.Addr()}},
		{place: found.named("one server refuses, the next one answers"), servers: []string{others.Addr(), ours.Addr()}},
		{place: found.named("the resolver is asked when the servers refuse"), servers: []string{others.Addr()}, resolvers: []string{ours.Addr()}},
		{place: place{name: "without resolvers the servers' refusal is the error", host: "www.example.test",
			err: []string{others.Addr() + " answers REFUSED", "allow-query"}}, servers: []string{others.Addr()}},
		{place: place{name: "a resolver doesn't stand in for servers that are down", host: "www.example.test",
			err: []string{"nothing listens at 127.0.0.1:1 (connection refused)"}}, servers: []string{"127.0.0.1:1"}, resolvers: []string{ours.Addr()}},
		{place: place{name: "a foreign zone without resolvers", host: "www.foreign.test",
			err: []string{"no provider serves _acme-challenge.www.foreign.test; the providers serve other.test", `if a CNAME leads from it to one of them, name resolvers that know it: [resolvers] public = ["ADDRESS"]`}},
			servers: []string{others.Addr()}, zones: []string{"other.test"}},
		{place: place{name: "an alias into a foreign zone without resolvers", host: "www.other.test",
			err: []string{"no provider serves _acme-challenge.www.other.test -> www.foreign.test; the providers serve other.test"}},
			servers: []string{others.Addr()}, zones: []string{"other.test"}},
		{place: found.named("an alias from a zone of others, which this machine's resolver knows").from("delegated.other.test"),
			servers: []string{ours.Addr()}, zones: []string{"example.test"}, machine: []string{others.Addr()}},
		{place: found.named("the same with a lone provider").from("delegated.other.test"), servers: []string{ours.Addr()}, machine: []string{others.Addr()}},
		{place: place{name: "this machine's resolver doesn't say what the provider's servers hold", host: "www.example.test",
			err: []string{others.Addr() + " answers REFUSED", "allow-query"}}, servers: []string{others.Addr()}, machine: []string{ours.Addr()}},
		{place: place{name: "a zone of others, which this machine's resolver knows", host: "host.other.test",
			err: []string{"no provider serves _acme-challenge.host.other.test, which is in zone other.test; the providers serve example.test: add the zone"}},
			servers: []string{ours.Addr()}, zones: []string{"example.test"}, machine: []string{others.Addr()}},
		{place: place{name: "a slip in a domain", host: "www.exmaple.test",
			err: []string{"no provider serves _acme-challenge.www.exmaple.test; did you mean www.example.test?"}},
			servers: []string{ours.Addr()}, zones: []string{"example.test"}},
		{place: place{name: "a slip beside a hostname whose zone nobody has looked for yet", host: "www.exmaple.test",
			err: []string{"REFUSED", "; did you mean www.example.test?"}},
			servers: []string{ours.Addr()}, hostnames: []string{"www.exmaple.test", "*.example.test"}},
		{place: place{name: "a name beside hostnames of another zone", host: "www.third.test",
			err: []string{"REFUSED", "; other names are in example.test"}},
			servers: []string{ours.Addr()}, hostnames: []string{"www.third.test", "mail.third.test", "mail.example.test"}},
		{place: place{name: "a name that is too long", host: strings.Repeat("long-label.", 23) + "example.test",
			err: []string{"has 281 characters, and a name in DNS has at most 253"}}, servers: []string{ours.Addr()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := locator(t, tt.resolvers, Provider{Name: "bind", Servers: tt.servers, Zones: tt.zones})
			if tt.machine != nil {
				s.cfg.System = func() ([]string, error) { return tt.machine, nil }
			}
			s = s.With(s.providers, tt.resolvers, tt.hostnames...)
			tt.check(t, s)
		})
	}
}

func (p place) named(name string) place {
	p.name = name
	return p
}

func (p place) from(host string) place {
	p.host = host
	return p
}

func TestMeant(t *testing.T) {
	zones := []string{"corp.example.com", "example.org", "ad.test"}
	tests := []struct{ name, want string }{
		{"_acme-challenge.www.crop.example.com", "www.corp.example.com"},
		{"_acme-challenge.www.corp.exampel.com", "www.corp.example.com"},
		{"_acme-challenge.www.corp.example.co", "www.corp.example.com"},
		{"_acme-challenge.www.corpexample.com", "www.corp.example.com"},
		{"_acme-challenge.crop.example.com", "corp.example.com"},
		{"_acme-challenge.www.exmple.org", "www.example.org"},
		{"_acme-challenge.www.corp.example.com", ""}, // no slip
		{"_acme-challenge.www.sales.example.com", ""},
		{"_acme-challenge.www.example.net", ""},
		{"_acme-challenge.www.da.test", "www.ad.test"},
		{"_acme-challenge.www.bc.test", ""}, // too little of it is the same
		{"_acme-challenge.www.other.invalid", ""},
		{"", ""},
	}
	for _, tt := range tests {
		if got, _ := Meant(tt.name, zones); got != tt.want {
			t.Errorf("%s: meant %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestLocateWithoutServersAsksThisMachine(t *testing.T) {
	d := startDNS(t, []string{"api.test"})
	s := asking(nil, Provider{Name: "api"})
	s.cfg.System = func() ([]string, error) { return []string{d.Addr()}, nil }
	place{host: "www.api.test", provider: "api", zone: "api.test", want: "_acme-challenge.www.api.test"}.check(t, s)
	s.cfg.System = func() ([]string, error) { return nil, nil }
	place{host: "www.api.test", err: []string{"there is no server to ask"}}.check(t, s)
}

// Some resolvers, stubs above all, leave the SOA out of an answer that says no.
func TestLocateWithTersestResolver(t *testing.T) {
	d := startDNS(t, []string{"example.test"}, "_acme-challenge.alias.example.test. 60 IN CNAME www.deep.example.test.")
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stub := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply, err := dns.Exchange(q, d.Addr())
		if err != nil {
			t.Error(err)
			return
		}
		reply.Ns = nil
		_ = w.WriteMsg(reply)
	})}
	ended := make(chan error, 1)
	go func() { ended <- stub.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
	s := locator(t, []string{conn.LocalAddr().String()}, Provider{Name: "api"})
	place{host: "www.example.test", provider: "api", zone: "example.test", want: "_acme-challenge.www.example.test"}.check(t, s)
	place{host: "alias.example.test", provider: "api", zone: "example.test", want: "www.deep.example.test"}.check(t, s)
}

// BIND follows aliases inside a zone by itself, and leaves those into its other zones to whoever asks.
func TestLocateOnBIND(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Zones: []testbed.BINDZone{
		{Name: "example.test", Records: []string{
			"_acme-challenge.alias IN CNAME alias.acme",
			"_acme-challenge.far IN CNAME far.hop", "far.hop IN CNAME far.other.test.",
			"_acme-challenge.ring IN CNAME a.ring", "a.ring IN CNAME b.ring", "b.ring IN CNAME a.ring",
			"_acme-challenge.self IN CNAME _acme-challenge.self",
			"*.wild IN CNAME wild.other.test.",
		}},
		{Name: "other.test"},
	}})
	tests := []place{
		{name: "a plain host", host: "www.example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.www.example.test"},
		{name: "the apex", host: "example.test", provider: "bind", zone: "example.test", want: "_acme-challenge.example.test"},
		{name: "an alias", host: "alias.example.test", provider: "bind", zone: "example.test", want: "alias.acme.example.test"},
		{name: "two aliases into another zone", host: "far.example.test", provider: "other", zone: "other.test", want: "far.other.test"},
		{name: "a wildcard alias", host: "x.wild.example.test", provider: "other", zone: "other.test", want: "wild.other.test"},
		{name: "aliases in a circle", host: "ring.example.test",
			err: []string{"_acme-challenge.ring.example.test -> a.ring.example.test -> b.ring.example.test -> a.ring.example.test", "circle"}},
		{name: "an alias of itself", host: "self.example.test", err: []string{"_acme-challenge.self.example.test -> _acme-challenge.self.example.test", "circle"}},
	}
	s := locator(t, nil, Provider{Name: "bind", Servers: []string{b.Addr()}, Zones: []string{"example.test"}},
		Provider{Name: "other", Servers: []string{b.Addr()}, Zones: []string{"other.test"}})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.check(t, s) })
	}
}

func TestEndpoints(t *testing.T) {
	d := startDNS(t, []string{"example.test", "lone.test"},
		"example.test. 60 IN NS ns2.example.test.", "ns2.example.test. 60 IN A 127.0.0.2", "ns2.example.test. 60 IN AAAA ::1",
		"example.test. 60 IN NS ns.other.test.",
		"lone.test. 60 IN NS nowhere.lone.test.")
	resolver := startDNS(t, []string{"other.test"}, "ns.other.test. 60 IN A 127.0.0.3")
	one, two := []string{d.Addr()}, []string{d.Addr(), "127.0.0.9:5353"}
	tests := []struct {
		name string
		Provider
		zone string
		want []string
		err  string
	}{
		{name: "all servers that NS records name, the primary first", Provider: Provider{Servers: one, Check: CheckAuthoritative}, zone: "example.test",
			want: []string{"ns1.example.test (" + d.Addr() + ")", "ns2.example.test (127.0.0.2:53)", "ns2.example.test ([::1]:53)", "ns.other.test (127.0.0.3:53)"}},
		{name: "the primary alone", Provider: Provider{Servers: two, Check: CheckPrimary}, zone: "example.test", want: []string{d.Addr()}},
		{name: "nobody", Provider: Provider{Servers: one, Check: CheckNone}, zone: "example.test"},
		{name: "those that are named, with the primary", Provider: Provider{Servers: one, Nameservers: []string{"127.0.0.7:53", d.Addr()}},
			zone: "example.test", want: []string{d.Addr(), "127.0.0.7:53"}},
		{name: "of two primaries it isn't known which one took the update", Provider: Provider{Servers: two, Nameservers: []string{"127.0.0.7:53"}},
			zone: "example.test", want: []string{"127.0.0.7:53"}},
		{name: "a name server without an address, where one is enough", Provider: Provider{Servers: one, MinNameservers: 1}, zone: "lone.test",
			want: []string{"ns1.lone.test (" + d.Addr() + ")", "nowhere.lone.test"}},
		{name: "a name server without an address", Provider: Provider{Servers: one, Check: CheckAuthoritative}, zone: "lone.test",
			err: `finding the servers of zone lone.test: name server nowhere.lone.test has no address: none is known to the zone's servers or the resolvers; remove its NS record, or go on without it: min_nameservers = 1; or name those that must have the records: nameservers = ["ADDRESS", …]`},
	}
	s := locator(t, []string{resolver.Addr()})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list, err := s.endpoints(t.Context(), tt.Provider, tt.zone)
			if text := said(err); tt.err != "" && text != tt.err || tt.err == "" && err != nil {
				t.Errorf("error: %s\nwant:  %s", text, tt.err)
			}
			var got []string
			for _, e := range list {
				got = append(got, e.String())
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("endpoints %q, want %q", got, tt.want)
			}
		})
	}
}

// A zone's servers are searched once for all who ask, again when they are distrusted or old, and for another order when the
// one that searched is given up.
func TestEndpointsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, zone := Provider{Name: "bind"}, "example.test"
		a := asking(nil, p)
		key := Zone{p.Name, zone}
		first, ours := a.searches.get(key)
		if !ours {
			t.Fatal("nobody has to make the first search")
		}
		var got atomic.Int32
		for range 10 {
			go func() {
				if list, err := a.knownEndpoints(t.Context(), p, zone); err == nil && len(list) == 1 {
					got.Add(1)
				}
			}()
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.knownEndpoints(cancelled, p, zone); !errors.Is(err, context.Canceled) {
			t.Errorf("who is given up while it waits: %v", err)
		}
		first.list = []endpoint{{server: server{addr: "127.0.0.1:53"}}}
		a.searches.finish(key, first)
		synctest.Wait()
		if got.Load() != 10 {
			t.Errorf("%d of 10 heard of the result", got.Load())
		}
		if _, ours := a.searches.get(key); ours {
			t.Error("what is known is searched again")
		}
		time.Sleep(serversKept)
		second, ours := a.searches.get(key)
		if !ours {
			t.Error("what is old isn't searched again")
		}
		a.searches.finish(key, second)
		a.searches.invalidate([]Zone{key})
		third, ours := a.searches.get(key)
		if !ours {
			t.Error("what is distrusted isn't searched again")
		}
		third.err = errors.New("SERVFAIL")
		a.searches.finish(key, third)
		if _, ours := a.searches.get(key); !ours {
			t.Error("a failure is remembered")
		}
		if _, ours := a.With(nil, nil).searches.get(key); !ours {
			t.Error("another configuration, which may name other servers, doesn't search for itself")
		}
	})
}
