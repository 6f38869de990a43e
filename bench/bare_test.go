//go:build linux

package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/sync/errgroup"
)

// bare is the protocol and nothing else: it keeps no account, order, key or certificate on disk, writes no journal, and
// asks the CA to look as soon as BIND has taken the record. Each record is an update message of its own.
type bare struct {
	client   *acme.Client
	account  acme.Account
	provider *rfc2136.Provider
}

// newBare has an account and, as a process at its start, no connection yet.
func (w *world) newBare(b *testing.B) *bare {
	b.Helper()
	key := w.bind.Key("acme-key")
	r := &bare{provider: &rfc2136.Provider{Server: w.bind.Addr(), KeyName: key.Name, KeyAlg: key.Algorithm, Key: key.Secret}}
	accountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(b, err)
	r.connect(w)
	r.account, err = r.client.NewAccount(b.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: accountKey})
	check(b, err)
	r.connect(w)
	return r
}

// connect begins anew, with a client that has neither connections nor nonces.
func (r *bare) connect(w *world) {
	if r.client != nil {
		r.client.HTTPClient.CloseIdleConnections()
	}
	r.client = &acme.Client{
		Directory: w.ca.Directory,
		HTTPClient: &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: w.ca.pool(), MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: concurrency,
		}},
		// The library's own pace of asking for a finalized order is slower than the program's; see pause.
		PollInterval: time.Nanosecond,
		PollTimeout:  time.Nanosecond,
	}
}

// obtainAll gets a certificate for each hostname, as many at a time as the program has orders that talk to the CA. An order
// of the bare protocol keeps its place while it waits, as in other clients; the program's gives it up, see
// docs/decisions/0002.
func (r *bare) obtainAll(b *testing.B, hostnames []string) {
	b.Helper()
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(concurrency)
	for _, h := range hostnames {
		group.Go(func() error {
			if err := r.obtain(ctx, h); err != nil {
				return fmt.Errorf("%s: %w", h, err)
			}
			return nil
		})
	}
	check(b, group.Wait())
}

// obtain gets one certificate.
func (r *bare) obtain(ctx context.Context, hostname string) error {
	order, err := r.client.NewOrder(ctx, r.account, acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: hostname}}})
	if err != nil {
		return err
	}
	authorization, err := r.client.GetAuthorization(ctx, r.account, order.Authorizations[0])
	if err != nil {
		return err
	}
	if authorization.Status == acme.StatusPending { // Pebble reuses a few
		if err := r.prove(ctx, authorization); err != nil {
			return err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{hostname}}, key)
	if err != nil {
		return err
	}
	location := order.Location
	order, err = r.client.FinalizeOrder(ctx, r.account, order, csr)
	if err != nil && order.Status != acme.StatusProcessing {
		return err
	}
	for n := 0; order.Status != acme.StatusValid; n++ {
		pause(n)
		if order, err = r.client.GetOrder(ctx, r.account, acme.Order{Location: location}); err != nil {
			return err
		}
	}
	_, err = r.client.GetCertificateChain(ctx, r.account, order.Certificate)
	return err
}

// prove publishes the record, lets the CA look, and removes the record.
func (r *bare) prove(ctx context.Context, authorization acme.Authorization) error {
	for _, c := range authorization.Challenges {
		if c.Type != acme.ChallengeTypeDNS01 {
			continue
		}
		record := []libdns.Record{libdns.TXT{Name: libdns.RelativeName(c.DNS01TXTRecordName(), zone), TTL: time.Minute, Text: c.DNS01KeyAuthorization()}}
		if _, err := r.provider.AppendRecords(ctx, zone+".", record); err != nil {
			return err
		}
		if _, err := r.client.InitiateChallenge(ctx, r.account, c); err != nil {
			return err
		}
		for n := 0; authorization.Status == acme.StatusPending; n++ {
			pause(n)
			var err error
			if authorization, err = r.client.GetAuthorization(ctx, r.account, authorization.Location); err != nil {
				return err
			}
		}
		if authorization.Status != acme.StatusValid {
			return fmt.Errorf("authorization is %s", authorization.Status)
		}
		_, err := r.provider.DeleteRecords(ctx, zone+".", record)
		return err
	}
	return fmt.Errorf("no dns-01 challenge for %s", authorization.IdentifierValue())
}

// pause is the program's pace of asking the CA: after 10 ms, and then twice as long each time.
func pause(n int) { time.Sleep(10 * time.Millisecond << min(n, 9)) }
