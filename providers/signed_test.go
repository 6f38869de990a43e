package providers

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"autocertd/internal/testbed"
)

// middleman sits between a provider and a server, sees every message and may answer in the server's place.
type middleman struct {
	addr string

	mu sync.Mutex
	// update returns what the client gets for an update: it may pass it on by forward, or not.
	update func(request *dns.Msg, forward func() *dns.Msg) *dns.Msg
	// all is for every message, in place of update.
	all bool
}

// startMiddleman listens until the test ends. Messages that aren't its business go to the server and back as they are.
func startMiddleman(t *testing.T, server string) *middleman {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middleman{addr: l.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				m.serve(conn, server)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return m
}

// serve answers one message, as providers send one on each connection.
func (m *middleman) serve(conn net.Conn, server string) {
	client := &dns.Conn{Conn: conn}
	wire, err := client.ReadMsgHeader(nil)
	if err != nil {
		return
	}
	forward := func() []byte {
		upstream, err := dns.DialTimeout("tcp", server, patience)
		if err != nil {
			return nil
		}
		defer upstream.Close()
		if _, err := upstream.Write(wire); err != nil {
			return nil
		}
		reply, _ := upstream.ReadMsgHeader(nil)
		return reply
	}
	request := new(dns.Msg)
	if request.Unpack(wire) != nil {
		return
	}
	m.mu.Lock()
	update, all := m.update, m.all
	m.mu.Unlock()
	if update == nil || request.Opcode != dns.OpcodeUpdate && !all {
		_, _ = client.Write(forward())
		return
	}
	reply := update(request, func() *dns.Msg {
		reply := new(dns.Msg)
		if reply.Unpack(forward()) != nil {
			return nil
		}
		return reply
	})
	if reply == nil {
		return
	}
	packed, err := reply.Pack()
	if err == nil {
		_, _ = client.Write(packed)
	}
}

func (m *middleman) set(all bool, update func(*dns.Msg, func() *dns.Msg) *dns.Msg) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.update, m.all = update, all
}

// unsignedAnswer is an answer that anybody could give.
func unsignedAnswer(request *dns.Msg, rcode int) *dns.Msg {
	return new(dns.Msg).SetRcode(request, rcode)
}

// failedSignature is an answer with an error of the signature and no MAC, as servers send it (RFC 8945, 5.2).
func failedSignature(request *dns.Msg, rcode int, code uint16) *dns.Msg {
	reply := unsignedAnswer(request, rcode)
	t := request.IsTsig()
	if t == nil {
		return reply
	}
	reply.Extra = append(reply.Extra, &dns.TSIG{
		Hdr:       dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: t.Algorithm, TimeSigned: t.TimeSigned, Fudge: t.Fudge, OrigId: request.Id, Error: code,
	})
	return reply
}

// withTSIG changes the signature of an answer.
func withTSIG(reply *dns.Msg, change func(*dns.TSIG)) *dns.Msg {
	if t := reply.IsTsig(); t != nil {
		change(t)
	}
	return reply
}

// Whoever sits between us and the server can keep us from changing the zone, and no more: nothing is taken for done, or for
// impossible, that the server didn't say with its signature.
func TestUnsignedAnswers(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	m := startMiddleman(t, b.Addr())
	dropTSIG := func(reply *dns.Msg) *dns.Msg {
		reply.Extra = nil
		return reply
	}
	tests := []struct {
		name   string
		all    bool // it answers questions, too
		update func(request *dns.Msg, forward func() *dns.Msg) *dns.Msg

		made      bool // the server has made the change, and a signed question says so
		retryable bool
		uncertain bool
	}{
		{name: "NOERROR without a signature, and the update is dropped", retryable: true,
			update: func(request *dns.Msg, _ func() *dns.Msg) *dns.Msg { return unsignedAnswer(request, dns.RcodeSuccess) }},
		{name: "NOERROR without a signature to everything", all: true, retryable: true, uncertain: true,
			update: func(request *dns.Msg, _ func() *dns.Msg) *dns.Msg { return unsignedAnswer(request, dns.RcodeSuccess) }},
		{name: "the signature is dropped on the way back", made: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg { return dropTSIG(forward()) }},
		{name: "REFUSED in place of the answer to an update that was made", made: true,
			update: func(request *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				forward()
				return unsignedAnswer(request, dns.RcodeRefused)
			}},
		{name: "REFUSED without a signature, and the update is dropped", retryable: true,
			update: func(request *dns.Msg, _ func() *dns.Msg) *dns.Msg { return unsignedAnswer(request, dns.RcodeRefused) }},
		{name: "REFUSED to everything", all: true, retryable: true, uncertain: true,
			update: func(request *dns.Msg, _ func() *dns.Msg) *dns.Msg { return unsignedAnswer(request, dns.RcodeRefused) }},
		{name: "BADKEY in place of the answer to everything", all: true, uncertain: true,
			update: func(request *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				forward()
				return failedSignature(request, dns.RcodeNotAuth, dns.RcodeBadKey)
			}},
		{name: "another response code under the signature", made: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				reply := forward()
				reply.Rcode = dns.RcodeRefused
				return reply
			}},
		{name: "NOTAUTH under the signature", made: true, // which the library doesn't look at
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				reply := forward()
				reply.Rcode = dns.RcodeNotAuth
				return reply
			}},
		{name: "SERVFAIL without a signature, and the update is dropped", retryable: true,
			update: func(request *dns.Msg, _ func() *dns.Msg) *dns.Msg {
				return unsignedAnswer(request, dns.RcodeServerFailure)
			}},
		{name: "half of the signature", made: true, // which RFC 8945, 5.2.2.1 allows and nobody was asked for
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				return withTSIG(forward(), func(t *dns.TSIG) { t.MACSize, t.MAC = t.MACSize/2, t.MAC[:len(t.MAC)/2] })
			}},
		{name: "a signature of another time", made: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				return withTSIG(forward(), func(t *dns.TSIG) { t.TimeSigned -= 3600 })
			}},
		{name: "a signature with another key", made: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				return withTSIG(forward(), func(t *dns.TSIG) { t.Hdr.Name = "other-key." })
			}},
		{name: "an answer that is said to be cut", made: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				reply := forward()
				reply.Truncated = true
				return reply
			}},
		{name: "the answer to another message", retryable: true, uncertain: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg {
				reply := forward()
				reply.Id++
				return reply
			}},
		{name: "no answer at all", retryable: true, uncertain: true,
			update: func(_ *dns.Msg, forward func() *dns.Msg) *dns.Msg { forward(); return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newTestRFC2136(t, fmt.Sprintf("server = %q\nkey_file = %q", m.addr, b.KeyFile("acme-key")))
			rec := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "value"}}
			others := []libdns.Record{libdns.TXT{Name: "_acme-challenge.www", TTL: time.Minute, Text: "theirs"}}
			check := func(call string, err error) {
				t.Helper()
				failure, ok := errors.AsType[*Error](err)
				switch {
				case tt.made && err != nil:
					t.Errorf("%s: %v; want none, since the server says by its signature what it has", call, err)
				case tt.made:
				case !ok:
					t.Errorf("%s: %v, want an *Error", call, err)
				case failure.Retryable() != tt.retryable || failure.Uncertain() != tt.uncertain:
					t.Errorf("%s: Retryable() = %v, Uncertain() = %v; want %v, %v: %v", call, failure.Retryable(), failure.Uncertain(), tt.retryable, tt.uncertain, err)
				}
			}
			m.set(tt.all, tt.update)
			_, err := p.Client.AppendRecords(t.Context(), "example.test", rec)
			check("AppendRecords", err)

			m.set(false, nil)
			if _, err := p.Client.AppendRecords(t.Context(), "example.test", append(rec, others...)); err != nil {
				t.Fatal(err)
			}
			m.set(tt.all, tt.update)
			_, err = p.Client.DeleteRecords(t.Context(), "example.test", rec)
			check("DeleteRecords", err)

			m.set(false, nil)
			if _, err := p.Client.DeleteRecords(t.Context(), "example.test", append(rec, others...)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A server that says by its signature that it isn't one for the zone is believed, though the library would look no further
// than at NOTAUTH.
func TestSignedNotAuth(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{})
	k := b.Key("acme-key")
	p := prober{server: b.Addr(), key: tsigKey{name: k.Name, algorithm: k.Algorithm, secret: k.Secret}}
	reply, err := p.emptyUpdate(t.Context(), "example.org")
	if err != nil || reply.Rcode != dns.RcodeNotAuth || reply.unproven != nil {
		t.Errorf("%v, %v, %v; want NOTAUTH with a signature", reply, err, reply.unproven)
	}
	for range 3 { // the signature of the next question is as good
		if reply, err := p.soa(t.Context(), "example.test"); err != nil || reply.unproven != nil {
			t.Errorf("%v, %v", err, reply.unproven)
		}
	}
	p.key.secret = testSecret
	if reply, err := p.soa(t.Context(), "example.test"); err != nil || !errors.Is(reply.unproven, errServerTSIG) || reply.tsigError() != dns.RcodeBadSig {
		t.Errorf("%v, %v", err, reply.unproven)
	}
}
