package providers

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/dnsname"
	"autocertd/internal/secret"
)

// tsigKey is a shared secret that signs messages (RFC 8945).
type tsigKey struct {
	name      string // in lower case, without the trailing dot
	algorithm string // one of tsigAlgorithms
	secret    string // base64
}

// shared returns the key for others, nil when there is none.
func (k tsigKey) shared() *secret.TSIGKey {
	if k.name == "" {
		return nil
	}
	return &secret.TSIGKey{Name: k.name, Algorithm: k.algorithm, Secret: secret.New(k.secret)}
}

// tsigAlgorithms returns the algorithms that can sign, the usual one first (RFC 8945, section 6).
func tsigAlgorithms() []string {
	return []string{"hmac-sha256", "hmac-sha512", "hmac-sha384", "hmac-sha224", "hmac-sha1"}
}

// newTSIGKey checks the three parts of a key and reports every mistake. No error shows the secret.
func newTSIGKey(name, algorithm, secret string) (tsigKey, error) {
	name, nameErr := tsigKeyName(name)
	algorithm, algErr := tsigAlgorithm(algorithm)
	secret, secretErr := tsigSecret(secret)
	if err := errors.Join(nameErr, algErr, secretErr); err != nil {
		return tsigKey{}, err
	}
	return tsigKey{name: name, algorithm: algorithm, secret: secret}, nil
}

// tsigKeyName lowers the name: servers answer with the canonical spelling, and an answer under another one can't be verified.
func tsigKeyName(name string) (string, error) {
	if name == "" {
		return "", errors.New("the key's name is missing; it is the word after \"key\" in the server's key statement")
	}
	if !isName(name) {
		return "", errors.New("the key's name isn't a DNS name: letters, digits, hyphens, underscores and dots")
	}
	return dnsname.Canonical(name), nil
}

// tsigAlgorithm returns the algorithm in its standard spelling.
func tsigAlgorithm(s string) (string, error) {
	s = dnsname.Canonical(s)
	if slices.Contains(tsigAlgorithms(), s) {
		return s, nil
	}
	// The value is shown only if it looks like an algorithm: it might be the secret at the wrong place.
	if len(s) > 32 || !strings.Contains(s, "hmac") && !strings.Contains(s, "sha") && !strings.Contains(s, "md5") {
		return "", fmt.Errorf("the key's algorithm is unknown; known are %s", strings.Join(tsigAlgorithms(), ", "))
	}
	if strings.Contains(s, "md5") {
		return "", fmt.Errorf("the key's algorithm %q is broken and no longer used; make a new key for the server and for us: tsig-keygen -a hmac-sha256 KEYNAME", s)
	}
	for _, known := range tsigAlgorithms() {
		if bits, ok := strings.CutPrefix(s, known+"-"); ok && strings.Trim(bits, "0123456789") == "" {
			return "", fmt.Errorf("the key's algorithm %q cuts signatures short, which isn't supported; for the server and for us: algorithm %s;", s, known)
		}
	}
	digest := strings.NewReplacer("hmac", "", "-", "", "_", "").Replace(s)
	for _, known := range tsigAlgorithms() {
		if strings.TrimPrefix(known, "hmac-") == digest {
			return "", fmt.Errorf("the key's algorithm %q is unknown; did you mean %q?", s, known)
		}
	}
	return "", fmt.Errorf("the key's algorithm %q is unknown; known are %s", s, strings.Join(tsigAlgorithms(), ", "))
}

func tsigSecret(s string) (string, error) {
	if s == "" {
		return "", errors.New("the key's secret is missing; it stands between the quotes after \"secret\" in the server's key statement")
	}
	// named skips blanks and the ends of lines, which long secrets and copied ones have.
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil || len(raw) == 0 {
		return "", errors.New("the key's secret isn't base64; copy all that stands between the quotes after \"secret\" in tsig-keygen's output")
	}
	return base64.StdEncoding.EncodeToString(raw), nil
}
