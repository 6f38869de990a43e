package deploy

import (
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Bundle is what was issued for a certificate, with the facts that commands are told.
type Bundle struct {
	Name      string   // of the certificate; stands for {name}
	Hostnames []string // in the leaf

	Key, Leaf, Chain []byte // PEM; Chain without the leaf, perhaps empty
	KeyElsewhere     bool   // there is no Key, and that is as it should be

	NotBefore, NotAfter time.Time
	Serial              string // hex
	Fingerprint         string // SHA-256 of the leaf's DER, hex
	Issuer              string
	Directory           string // URL of the CA's directory
}

// check refuses a bundle whose name or fingerprint can't become part of a path.
func (b Bundle) check() error {
	if b.Name == "" || b.Name == "." || b.Name == ".." || strings.ContainsAny(b.Name, "/\x00") {
		return fmt.Errorf("deploy certificate %q: the name can't be part of a path", b.Name)
	}
	if sum, err := hex.DecodeString(b.Fingerprint); err != nil || len(sum) != 32 {
		return fmt.Errorf("deploy certificate %s: the fingerprint %q is not a SHA-256 in hex", b.Name, b.Fingerprint)
	}
	return nil
}

// pair refuses a key and a chain that don't belong together. It is asked before each write, not at each look.
func (b Bundle) pair() error {
	if b.KeyElsewhere {
		return nil
	}
	if _, err := tls.X509KeyPair(b.fullchain(), b.Key); err != nil {
		return fmt.Errorf("the bundle of %s is unusable: %w", b.Name, err)
	}
	return nil
}

func (b Bundle) fullchain() []byte { return joinPEM(b.Leaf, b.Chain) }

// joinPEM puts PEM texts behind one another, each ending with a newline.
func joinPEM(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
		if n := len(out); n > 0 && out[n-1] != '\n' {
			out = append(out, '\n')
		}
	}
	return out
}
