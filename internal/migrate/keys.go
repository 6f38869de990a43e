package migrate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
)

// readKey reads a private key in any of the PEM forms that clients write. Its errors never hold the key.
func readKey(path string) (crypto.Signer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("holds no private key in PEM")
		}
		var key any
		switch block.Type {
		case "EC PARAMETERS": // openssl writes them before the key, which has them too
			continue
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("holds a %q instead of a private key", block.Type)
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("holds a private key that can't be used")
		}
		return signer, nil
	}
}

// jwk is a private key in JSON (RFC 7518 section 6).
type jwk struct {
	Kty, Crv            string
	N, E, D, P, Q, X, Y number
}

// number is written as base64url, the most significant byte first.
type number []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *number) UnmarshalText(text []byte) (err error) {
	*n, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(string(text), "="))
	return err
}

func (n number) int() *big.Int { return new(big.Int).SetBytes(n) }

// key returns the private key.
func (k *jwk) key() (crypto.Signer, error) {
	broken := errors.New("holds a private key that can't be used")
	switch k.Kty {
	case "RSA":
		if len(k.E) > 4 {
			return nil, broken
		}
		key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: k.N.int(), E: int(k.E.int().Int64())}, D: k.D.int(), Primes: []*big.Int{k.P.int(), k.Q.int()}}
		if key.Validate() != nil {
			return nil, broken
		}
		key.Precompute()
		return key, nil
	case "EC":
		curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		if !ok {
			break
		}
		key, err := ecdsa.ParseRawPrivateKey(curve, k.D) // RFC 7518 section 6.2.2.1 wants all of its bytes
		if err != nil {
			return nil, broken
		}
		return key, nil
	}
	return nil, fmt.Errorf("holds a key of type %q, which isn't used in ACME", k.Kty)
}

// readPair reads a key and the chain that belongs to it, which may be spread over several files. Files that aren't there
// are passed over.
func readPair(keyFile string, chainFiles ...string) (*Certificate, error) {
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	c := &Certificate{Key: key, KeyType: keyType(key)}
	for _, file := range chainFiles {
		if data, err := readFile(file); err == nil {
			if c.Chain, err = appendChain(c.Chain, data); err != nil {
				return nil, err
			}
		}
	}
	if len(c.Chain) == 0 {
		return nil, errors.New("has no certificate beside it")
	}
	leaf := c.Leaf()
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("doesn't belong to the certificate beside it")
	}
	for _, hostname := range leaf.DNSNames {
		c.Hostnames = append(c.Hostnames, strings.ToLower(hostname))
	}
	if len(c.Hostnames) == 0 || len(leaf.IPAddresses) > 0 {
		return nil, fmt.Errorf("is for the addresses %v, which dns-01 can't prove", append([]net.IP{}, leaf.IPAddresses...))
	}
	return c, nil
}

// appendChain adds the certificates of a PEM file, but none that is there already.
func appendChain(chain []*x509.Certificate, data []byte) ([]*x509.Certificate, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return chain, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errors.New("the certificate beside it is broken")
		}
		known := false
		for _, c := range chain {
			known = known || c.Equal(cert)
		}
		if !known {
			chain = append(chain, cert)
		}
	}
}

// keyType is what the configuration calls the kind of a key, "" when it has no name for it.
func keyType(key crypto.Signer) string {
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return "ecdsa-p256"
		case elliptic.P384():
			return "ecdsa-p384"
		}
	case *rsa.PublicKey:
		switch bits := public.N.BitLen(); bits {
		case 2048, 3072, 4096:
			return fmt.Sprintf("rsa-%d", bits)
		}
	}
	return ""
}
