//go:build linux

package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// writeStepCAFiles writes a root, an intermediate with its key, and ca.json. The root's key is not kept.
func writeStepCAFiles(dir, addr string, lifetime time.Duration) (rootPEM []byte, err error) {
	root, rootKey, err := newAuthority("testbed root", nil, nil)
	if err != nil {
		return nil, err
	}
	between, key, err := newAuthority("testbed intermediate", root, rootKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	configuration, err := json.MarshalIndent(stepCAConfiguration(dir, addr, lifetime), "", "\t")
	if err != nil {
		return nil, err
	}
	rootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	for name, data := range map[string][]byte{
		"root.pem":         rootPEM,
		"intermediate.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: between.Raw}),
		"intermediate.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		"ca.json":          configuration,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	return rootPEM, nil
}

// stepCAConfiguration is ca.json: one ACME provisioner, called acme, that validates by dns-01 alone.
func stepCAConfiguration(dir, addr string, lifetime time.Duration) map[string]any {
	file := func(name string) string { return filepath.Join(dir, name) }
	return map[string]any{
		"root": file("root.pem"), "crt": file("intermediate.pem"), "key": file("intermediate.key"),
		"address": addr, "dnsNames": []string{"127.0.0.1"},
		"db":     map[string]string{"type": "bbolt", "dataSource": file("db")},
		"logger": map[string]string{"format": "text"},
		"authority": map[string]any{"provisioners": []any{map[string]any{
			"type": "ACME", "name": "acme", "challenges": []string{"dns-01"},
			"claims": map[string]string{"minTLSCertDuration": "1s", "defaultTLSCertDuration": lifetime.String(), "maxTLSCertDuration": lifetime.String()},
		}}},
	}
}

// newAuthority makes a CA certificate and its key; without a parent it signs itself.
func newAuthority(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(0, 1, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
