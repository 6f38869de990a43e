package lifecycle

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"iter"
	"math/big"
	"testing"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// oneObject is a Storage that holds the same object under every key.
type oneObject struct {
	state.Store
	Data []byte
}

func (o oneObject) Load(context.Context, string) ([]byte, error) { return o.Data, nil }

func (o oneObject) Scan(_ context.Context, keys ...string) iter.Seq2[store.Object, error] {
	return func(yield func(store.Object, error) bool) {
		for _, key := range keys {
			if !yield(store.Object{Key: key, Data: o.Data}, nil) {
				return
			}
		}
	}
}

func (o oneObject) SaveLazily(context.Context, string, []byte) error { return nil }

// FuzzStored: whatever a disk makes of what was saved, nothing panics, nothing is waited for without end, and what is
// remembered next can be saved.
func FuzzStored(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{`, `{"name":"web"}`, `{"name":"web","next_look":"2999-01-01T00:00:00Z"}`,
		`{"name":"web","issue":{"failures":-9223372036854775808,"at":"2026-01-01T00:00:00Z","retry_at":"9999-12-31T23:59:59-23:59"}}`,
		`{"name":"web","ari":{"moment":"0000-01-01T00:00:00+23:59","chosen_at":"2020-01-01T00:00:00Z"},"ask_after":{"one":"2999-01-01T00:00:00Z"}}`,
		`{"url":"https://ca.test/order/1","key":"-----BEGIN PRIVATE KEY-----"}`,
		`{"key":"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n","leaf":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"}`,
	} {
		f.Add([]byte(seed))
	}
	for _, object := range wholeObjects(f) {
		f.Add(object)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := New(Config{Storage: oneObject{Data: data}})
		ctx, now := t.Context(), time.Now()
		j := &job{Manager: m, snapshot: &Snapshot{}, cert: config.Certificate{Name: name, CAs: []string{"one"}}}
		if err := j.read(ctx); err != nil || j.state.Name != name {
			t.Fatalf("state %+v, %v", j.state, err)
		}
		_, wrong := errors.AsType[*state.DamagedError](j.state.Faults.Bundle)
		switch {
		case j.state.Bundle != nil:
			j.takeOver(j.state.Bundle, j.state.X509)
			j.view().due(now)
		case !wrong:
			t.Fatalf("bundle: %v", j.state.Faults.Bundle)
		}
		if order := j.openOrder("one"); order != nil && order.URL == "" {
			t.Fatal("an order without a URL")
		}

		j.state.Issue = worse(j.state.Issue, errFault, now, now)
		if j.state.Issue.Failures < 1 {
			t.Errorf("%d failures", j.state.Issue.Failures)
		}
		if j.plan(now); j.state.NextLook.After(now.Add(2 * lookInterval)) {
			t.Errorf("the next look is at %s", j.state.NextLook)
		}
		here, err := state.LoadDeployment(ctx, m.cfg.Storage, m.cfg.Node, name)
		if err != nil {
			t.Fatal(err)
		}
		here.Sanitize(now)
		if longest := now.Add(state.LongestWait + time.Hour); here.Trouble.RetryAt.After(longest) || j.state.Issue.RetryAt.After(longest) || askAfter(j.state, j.cert.CAs).After(longest) {
			t.Errorf("the state is %+v", j.state)
		}
		if err := errors.Join(state.Save(ctx, m.cfg.Storage, j.state), state.SaveDeployment(ctx, m.cfg.Storage, m.cfg.Node, here)); err != nil {
			t.Error(err)
		}
		if _, err := Statuses(ctx, m.cfg.Storage, state.LocalNode, nil, now); err != nil {
			t.Error(err)
		}
	})
}

// wholeObjects are a state, a bundle and an order as they are saved.
func wholeObjects(f *testing.F) (list [][]byte) {
	f.Helper()
	for _, v := range []any{
		state.Certificate{Name: name, NextLook: time.Now(), AskAfter: map[string]time.Time{"one": time.Now()}},
		usableBundle(f, time.Now(), time.Now().Add(time.Hour)),
		usableBundle(f, time.Now(), time.Now().Add(-time.Hour)), // expired before it was valid
		issuer.OpenOrder{URL: "https://ca.test/order/1", Hostnames: []string{"a.example.test"}},
	} {
		data, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		list = append(list, data)
	}
	return list
}

// usableBundle is a bundle whose key and certificate belong together.
func usableBundle(f *testing.F, notBefore, notAfter time.Time) state.Bundle {
	f.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notBefore, NotAfter: notAfter, DNSNames: []string{"a.example.test"}}
	leaf, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	return state.Bundle{Name: name, Hostnames: template.DNSNames, Issued: time.Now(),
		Key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		Leaf: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf}))}
}
