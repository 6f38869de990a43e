package providers

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	dialTime   = 3 * time.Second // for a connection to a server
	answerTime = 5 * time.Second // for its answer, unless the configuration says otherwise
	fudge      = 300             // seconds by which the clocks may differ (RFC 8945, section 10)
)

var (
	errUnsigned   = errors.New("the answer isn't signed")
	errOtherKey   = errors.New("the answer is signed with another key")
	errNoAnswer   = errors.New("what came back isn't the answer")
	errBadAnswer  = errors.New("what came back isn't a DNS message")
	errServerTSIG = errors.New("the server didn't take our signature")
)

// prober sends messages to one server, each over a connection of its own: with its next signed message on one connection
// the library would take the first one's MAC into the signature.
type prober struct {
	server string
	key    tsigKey       // zero: nothing is signed
	wait   time.Duration // for an answer; zero: answerTime
}

// answer is what a server sent back.
type answer struct {
	*dns.Msg

	// unproven says why nobody knows whether the server itself sent it, and about our message; nil when the signature is
	// right (RFC 8945, 5.3).
	unproven error
}

// tsigError returns the error field of the answer's TSIG record (RFC 8945, 5.2), 0 if there is none.
func (a answer) tsigError() int {
	if t := a.IsTsig(); t != nil {
		return int(t.Error)
	}
	return 0
}

// ask sends m over TCP, signed if there is a key, and returns the answer, whatever it says. Without a key every answer is
// unproven.
func (p prober) ask(ctx context.Context, m *dns.Msg) (answer, error) {
	dialer := net.Dialer{Timeout: dialTime}
	tcp, err := dialer.DialContext(ctx, "tcp", p.server)
	if err != nil {
		return answer{}, err
	}
	defer tcp.Close()
	defer context.AfterFunc(ctx, func() { _ = tcp.Close() })()
	wait := p.wait
	if wait == 0 {
		wait = answerTime
	}
	_ = tcp.SetDeadline(time.Now().Add(wait))

	wire, mac, err := p.key.sign(m)
	if err != nil {
		return answer{}, fmt.Errorf("sign: %w", err)
	}
	conn := &dns.Conn{Conn: tcp}
	if _, err := conn.Write(wire); err != nil {
		return answer{}, err
	}
	reply, err := conn.ReadMsgHeader(nil)
	if err != nil && !errors.Is(err, dns.ErrShortRead) {
		return answer{}, err
	}
	a := answer{Msg: new(dns.Msg)}
	if err != nil || a.Unpack(reply) != nil {
		return answer{}, errBadAnswer
	}
	if a.Id != m.Id || !a.Response || a.Opcode != m.Opcode {
		return answer{}, errNoAnswer
	}
	a.unproven = p.key.verify(a.Msg, reply, mac)
	return a, nil
}

// sign returns m as bytes and, with a key, its MAC in hexadecimal digits.
func (k tsigKey) sign(m *dns.Msg) (wire []byte, mac string, err error) {
	if k.name == "" {
		wire, err = m.Pack()
		return wire, "", err
	}
	m.SetTsig(dns.Fqdn(k.name), dns.Fqdn(k.algorithm), fudge, time.Now().Unix())
	return dns.TsigGenerateWithProvider(m, signer{key: k}, "", false)
}

// verify returns nil if wire, which m was read from, is an answer to the message with that MAC and signed with the key.
func (k tsigKey) verify(m *dns.Msg, wire []byte, mac string) error {
	t := m.IsTsig()
	switch {
	case k.name == "" || t == nil:
		return errUnsigned
	case t.MACSize == 0:
		return errServerTSIG
	case dns.CanonicalName(t.Hdr.Name) != dns.CanonicalName(k.name), dns.CanonicalName(t.Algorithm) != dns.CanonicalName(k.algorithm):
		return errOtherKey
	}
	// The library gives up on NOTAUTH before it looks at the signature. So it is shown another response code, and the
	// signer puts the right one back.
	shown := bytes.Clone(wire)
	shown[rcodeByte] &^= 0x0f
	return dns.TsigVerifyWithProvider(shown, signer{key: k, header: 2 + len(mac)/2, rcode: wire[rcodeByte] & 0x0f}, mac, false)
}

// rcodeByte is where a message has its response code, in the lower half (RFC 1035, 4.1.1).
const rcodeByte = 3

// signer makes and checks MACs with one key.
type signer struct {
	key    tsigKey
	header int  // where in what is verified the message begins, behind the request's MAC and its length
	rcode  byte // of that message
}

// Generate returns the MAC of a message (RFC 8945, 4.3).
func (s signer) Generate(msg []byte, _ *dns.TSIG) ([]byte, error) {
	algorithm, ok := map[string]func() hash.Hash{
		"hmac-sha1": sha1.New, "hmac-sha224": sha256.New224, "hmac-sha256": sha256.New,
		"hmac-sha384": sha512.New384, "hmac-sha512": sha512.New,
	}[s.key.algorithm]
	if !ok {
		return nil, dns.ErrKeyAlg
	}
	secret, err := base64.StdEncoding.DecodeString(s.key.secret)
	if err != nil {
		return nil, dns.ErrSecret // the decoder's own error would show where the secret is wrong
	}
	mac := hmac.New(algorithm, secret)
	mac.Write(msg)
	return mac.Sum(nil), nil
}

// Verify returns nil if the MAC is the one of the message.
func (s signer) Verify(msg []byte, t *dns.TSIG) error {
	msg[s.header+rcodeByte] |= s.rcode
	want, err := s.Generate(msg, t)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(t.MAC), fmt.Appendf(nil, "%x", want)) {
		return dns.ErrSig
	}
	return nil
}
