package testbed

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/miekg/dns"
)

// TSIGKey is a shared secret that signs updates (RFC 8945).
type TSIGKey struct {
	Name      string
	Algorithm string // default: hmac-sha256
	Secret    string // base64; default: random
}

func (k TSIGKey) withDefaults() TSIGKey {
	if k.Algorithm == "" {
		k.Algorithm = "hmac-sha256"
	}
	if k.Secret == "" {
		secret := make([]byte, 32)
		rand.Read(secret)
		k.Secret = base64.StdEncoding.EncodeToString(secret)
	}
	return k
}

// keyring holds keys by canonical name and signs and verifies with them. Unlike the library's own provider it accepts
// key names with capitals, and insists on the algorithm of the key, as BIND does.
type keyring map[string]TSIGKey

// Generate returns the MAC of a message (RFC 8945, 4.3).
func (k keyring) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	key, ok := k[dns.CanonicalName(t.Hdr.Name)]
	if !ok || dns.CanonicalName(key.Algorithm) != dns.CanonicalName(t.Algorithm) {
		return nil, dns.ErrSecret
	}
	algorithms := map[string]func() hash.Hash{
		dns.HmacSHA1: sha1.New, dns.HmacSHA224: sha256.New224, dns.HmacSHA256: sha256.New,
		dns.HmacSHA384: sha512.New384, dns.HmacSHA512: sha512.New,
	}
	algorithm, ok := algorithms[dns.CanonicalName(key.Algorithm)]
	if !ok {
		return nil, dns.ErrKeyAlg
	}
	secret, err := base64.StdEncoding.DecodeString(key.Secret)
	if err != nil {
		return nil, dns.ErrSecret // the decoder's own error would show where the secret is wrong
	}
	mac := hmac.New(algorithm, secret)
	mac.Write(msg)
	return mac.Sum(nil), nil
}

// Verify checks the MAC of a message.
func (k keyring) Verify(msg []byte, t *dns.TSIG) error {
	want, err := k.Generate(msg, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil || !hmac.Equal(got, want) {
		return dns.ErrSig
	}
	return nil
}

// sign prepares the reply to a signed request: the writer computes the MAC. When the request failed verification, the
// reply says why (RFC 8945, 5.2), in the TSIG record and as NOTAUTH.
func (k keyring) sign(reply *dns.Msg, request *dns.TSIG, status error) {
	t := &dns.TSIG{
		Hdr:        dns.RR_Header{Name: dns.CanonicalName(request.Hdr.Name), Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm:  request.Algorithm,
		Fudge:      300,
		TimeSigned: uint64(time.Now().Unix()),
		OrigId:     reply.Id,
	}
	switch {
	case errors.Is(status, dns.ErrSecret), errors.Is(status, dns.ErrKeyAlg):
		t.Error = dns.RcodeBadKey
	case errors.Is(status, dns.ErrTime):
		t.Error = dns.RcodeBadTime
		t.OtherLen, t.OtherData = 6, fmt.Sprintf("%012x", t.TimeSigned)
		t.TimeSigned = request.TimeSigned
	case status != nil:
		t.Error = dns.RcodeBadSig
	}
	reply.Extra = append(reply.Extra, t)
	if status != nil {
		reply.Rcode = dns.RcodeNotAuth
	}
}
