//go:build linux

package bench_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/lifecycle"
	"autocertd/internal/state"
	"autocertd/internal/store/files"
	"autocertd/internal/store/storetest"
	"autocertd/scheduler"
)

// writeStates makes the state directory of a configuration whose certificates were all issued a week ago, so that none
// is due. The certificates are real, with one key for all, which is quicker. Without bundles there is one certificate, in the
// states of all.
func writeStates(b *testing.B, path string, bundles bool) {
	b.Helper()
	var outputs deploy.Outputs
	cfg, err := config.Load(path, config.Checks{Outputs: func(c *config.Config, tables []config.Table) { outputs = lifecycle.BuildOutputs(c, tables) }})
	check(b, err)
	for _, folder := range []string{"states", "bundles"} {
		check(b, os.MkdirAll(filepath.Join(cfg.StateDir, folder), 0o700))
	}
	acted := actedOn(b, cfg, outputs)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(b, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	check(b, err)
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	now := time.Now().UTC().Truncate(time.Second)
	var der []byte
	for i, c := range cfg.Certificates {
		cert := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 1), DNSNames: c.Hostnames,
			NotBefore: now.AddDate(0, 0, -7), NotAfter: now.AddDate(0, 0, 83)}
		if bundles || i == 0 {
			der, err = x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
			check(b, err)
		}
		leafPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		if bundles {
			writeJSON(b, filepath.Join(cfg.StateDir, "bundles", c.Name+".json"), state.Bundle{Name: c.Name, Hostnames: c.Hostnames,
				KeyType: c.KeyType, CA: c.CAs[0], Directory: cfg.CAs[0].Directory, Account: cfg.CAs[0].Directory + "/1", Issued: now,
				Key: string(keyPEM), Leaf: leafPEM, Chain: leafPEM})
		}
		sum := sha256.Sum256(der)
		mark := hex.EncodeToString(sum[:])
		renew := cert.NotBefore.AddDate(0, 0, 60)
		writeJSON(b, filepath.Join(cfg.StateDir, "states", c.Name+".json"), state.Certificate{Name: c.Name, Wish: acted[c.Name],
			Leaf: state.Leaf{Hostnames: c.Hostnames, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
				Serial: cert.SerialNumber.Text(16), Fingerprint: mark, Issuer: "Bench", CA: c.CAs[0]},
			// As the last look left it: outputs are looked at once an hour, and the CA is asked within the day.
			NextLook: now.Add(time.Hour), RenewAt: renew, RenewWhy: "two thirds of the lifetime are over",
			ARI: state.Suggestion{Start: renew, End: renew.AddDate(0, 0, 1), Moment: renew, ChosenAt: now, AskAgain: now.Add(5 * time.Hour)}})
	}
	if bundles {
		deployAll(b, cfg, outputs)
	}
}

// deployAll writes the files of all certificates, as the last look left them.
func deployAll(b *testing.B, cfg *config.Config, outputs deploy.Outputs) {
	b.Helper()
	opened, err := files.Open(cfg.StateDir, "bench")
	check(b, err)
	deployer := deploy.New(deploy.Config{Store: opened})
	names := make([]string, len(cfg.Certificates))
	for i, c := range cfg.Certificates {
		names[i] = c.Name
	}
	deployer.Use(outputs, names)
	var group errgroup.Group
	group.SetLimit(64)
	for _, name := range names {
		group.Go(func() error {
			_, err := deployer.Reconcile(b.Context(), name)
			return err
		})
	}
	check(b, group.Wait())
}

func writeJSON(b *testing.B, path string, object any) {
	b.Helper()
	data, err := json.Marshal(object)
	check(b, errors.Join(err, os.WriteFile(path, data, 0o600)))
}

// actedOn returns the mark that the lifecycle keeps of each certificate's configuration, without which it would look at
// every certificate at once. It lets the lifecycle itself make them: by a try to issue that ends at the first step,
// since no CA is there.
func actedOn(b *testing.B, cfg *config.Config, outputs deploy.Outputs) map[string]string {
	b.Helper()
	memory := &storetest.Memory{}
	manager := lifecycle.New(lifecycle.Config{Storage: memory, Deployer: deploy.New(deploy.Config{Store: memory})})
	manager.Use(lifecycle.NewSnapshot(cfg, outputs, nil, scheduler.Window{}))
	acted := make(map[string]string, len(cfg.Certificates))
	for _, c := range cfg.Certificates {
		if _, err := manager.Reconcile(b.Context(), c.Name); err == nil {
			b.Fatalf("%s was issued by nobody", c.Name)
		}
		known, err := state.LoadFacts(b.Context(), memory, c.Name)
		check(b, err)
		acted[c.Name] = known.Wish
	}
	return acted
}
