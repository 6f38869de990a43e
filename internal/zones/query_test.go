package zones

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/secret"
)

// impostor is a name server in the place of ours, which has the value "x" everywhere. It listens by UDP and TCP.
type impostor struct {
	addr     string
	answer   func(w dns.ResponseWriter, q, reply *dns.Msg) // changes the reply before it is sent
	unsigned atomic.Int32                                  // questions that came unsigned
}

func startImpostor(t *testing.T, key *Key, answer func(w dns.ResponseWriter, q, reply *dns.Msg)) *impostor {
	t.Helper()
	var packets net.PacketConn
	var stream net.Listener
	for range 20 { // the same port for both
		var err error
		if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if stream, err = net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			break
		}
		_ = packets.Close()
	}
	if stream == nil {
		t.Fatal("no port is free for UDP and TCP")
	}
	i := &impostor{addr: stream.Addr().String(), answer: answer}
	secrets := map[string]string{dns.Fqdn(key.Name): key.Secret.Reveal(), "other-key.": "b3RoZXI="}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: i, TsigSecret: secrets}, {Listener: stream, Handler: i, TsigSecret: secrets}} {
		serve(t, server)
	}
	return i
}

// ServeDNS implements dns.Handler.
func (i *impostor) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	if q.IsTsig() == nil {
		i.unsigned.Add(1)
	}
	reply := new(dns.Msg).SetReply(q)
	reply.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"x"}}}
	i.answer(w, q, reply)
	_ = w.WriteMsg(reply)
}

func sign(q, reply *dns.Msg) {
	t := q.IsTsig()
	reply.SetTsig(t.Hdr.Name, t.Algorithm, tsigFudge, time.Now().Unix())
}

func overUDP(w dns.ResponseWriter) bool { return w.RemoteAddr().Network() == "udp" }

// A signed question is answered by a signed reply or not at all, and never asked again without its signature.
func TestSignedQuestions(t *testing.T) {
	key := &Key{Name: "acme-key", Algorithm: "hmac-sha256", Secret: secret.New("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")}
	tests := []struct {
		name   string
		answer func(w dns.ResponseWriter, q, reply *dns.Msg)
		want   string // in the error; "" for an answer
	}{
		{"a signed answer", func(_ dns.ResponseWriter, q, reply *dns.Msg) { sign(q, reply) }, ""},
		{"one that is too long for UDP, and says so unsigned", func(w dns.ResponseWriter, q, reply *dns.Msg) {
			if reply.Truncated = overUDP(w); !reply.Truncated {
				sign(q, reply)
			}
		}, ""},
		{"an unsigned answer", func(dns.ResponseWriter, *dns.Msg, *dns.Msg) {}, "without a signature"},
		{"an unsigned denial", func(_ dns.ResponseWriter, _, reply *dns.Msg) {
			reply.Answer, reply.Rcode = nil, dns.RcodeNameError
		}, "without a signature"},
		{"an answer that is signed with another key", func(_ dns.ResponseWriter, _, reply *dns.Msg) {
			reply.SetTsig("other-key.", dns.HmacSHA256, tsigFudge, time.Now().Unix())
		}, "no secrets defined"},
		{"a refusal of the key, which has to be unsigned", func(_ dns.ResponseWriter, q, reply *dns.Msg) {
			reply.Rcode = dns.RcodeNotAuth
		}, `doesn't take TSIG key "acme-key" (NOTAUTH)`},
		{"a refusal that names the reason", func(_ dns.ResponseWriter, q, reply *dns.Msg) {
			reply.Rcode = dns.RcodeRefused
			reply.Extra = append(reply.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: q.IsTsig().Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
				Algorithm: dns.HmacSHA256, Error: dns.RcodeBadKey})
		}, `doesn't take TSIG key "acme-key"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := startImpostor(t, key, tt.answer)
			reply, err := ask(t.Context(), server{i.addr, key}, question("_acme-challenge.www.example.test", dns.TypeTXT, false))
			switch {
			case tt.want == "" && (err != nil || !holds(reply, "x")):
				t.Errorf("no answer: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want an error with: %s", err, tt.want)
			}
			if n := i.unsigned.Load(); n > 0 {
				t.Errorf("%d questions came unsigned", n)
			}
		})
	}
}
