package lifecycle

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"autocertd/issuer"
)

// obtain gets a certificate from the first of the certificate's CAs that gives one, and saves it.
func (j *job) obtain(ctx context.Context, why string) error {
	begin := time.Now()
	var failures []error
	for _, ca := range j.cert.CAs {
		err := j.obtainFrom(ctx, ca)
		if err == nil {
			j.cfg.Logger.Info("certificate issued", "certificate", j.cert.Name, "why", why, "ca", ca,
				"hostnames", strings.Join(j.cert.Hostnames, ","), "not_after", j.leaf.NotAfter.UTC().Format(time.RFC3339), "took", time.Since(begin).Round(time.Millisecond))
			return nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil || !anotherMayHelp(err) {
			break
		}
	}
	return errors.Join(failures...)
}

// anotherMayHelp reports whether a failure is one CA's: our own servers fail alike for all of them.
func anotherMayHelp(err error) bool {
	var ca *issuer.Error
	return errors.As(err, &ca) && !issuer.FailedValidation(err)
}

func (j *job) obtainFrom(ctx context.Context, ca string) error {
	iss := j.snapshot.Issuers[ca]
	if iss == nil {
		return fmt.Errorf("CA %q isn't configured", ca)
	}
	keep := keeper{j.cfg.Storage, orderObject(ca, j.cert.Name)}
	open, err := keep.load(ctx)
	if err != nil {
		return err
	}
	request := issuer.Request{Hostnames: j.cert.Hostnames, KeyType: issuer.KeyType(j.cert.KeyType), Profile: j.cert.Profile,
		Replaces: j.replaces(iss), Open: open, Orders: keep,
		Progress: func(s issuer.Step) { j.progress(s) }}
	issued, err := iss.Obtain(ctx, request)
	if err != nil {
		return err
	}
	if err := j.save(ctx, iss, issued); err != nil {
		return err
	}
	// The bundle is durable: the order has served. Dying before this resumes it, to the same certificate.
	if err := keep.Drop(context.WithoutCancel(ctx)); err != nil {
		j.cfg.Logger.Warn("open order can't be forgotten", "certificate", j.cert.Name, "err", err)
	}
	return nil
}

func (j *job) progress(s issuer.Step) {
	if j.cfg.Progress != nil {
		j.cfg.Progress(j.cert.Name, s)
	}
}

// replaces returns the certificate that a renewal at this CA replaces, nil when the last one came from elsewhere.
func (j *job) replaces(iss *issuer.Issuer) *x509.Certificate {
	if j.bundle == nil || j.bundle.Directory != iss.DirectoryURL() {
		return nil
	}
	return j.leaf
}

// save makes the bundle durable and resets what was known of the old one.
func (j *job) save(ctx context.Context, iss *issuer.Issuer, issued *issuer.Bundle) error {
	b := &Bundle{Name: j.cert.Name, Hostnames: j.cert.Hostnames, KeyType: j.cert.KeyType, Profile: j.cert.Profile,
		CA: iss.Name(), Directory: iss.DirectoryURL(), Account: issued.Account, Issued: time.Now().UTC(),
		Key: string(issued.Key), Leaf: string(issued.Leaf), Chain: string(issued.Chain)}
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := j.cfg.Storage.Save(context.WithoutCancel(ctx), bundleObject(j.cert.Name), data); err != nil {
		return err
	}
	j.bundle, j.leaf = b, issued.Cert
	j.state.Leaf = describe(issued.Cert, b)
	j.state.ARI = Suggestion{AskAgain: firstAsk(b.Issued, issued.Cert)}
	return nil
}

// firstAsk is when the CA is first asked about a new certificate: after a while, so that a CA that wants everything
// renewed at once can't make us order in a loop, and not for all certificates of a pass together.
func firstAsk(issued time.Time, cert *x509.Certificate) time.Time {
	tenth := cert.NotAfter.Sub(cert.NotBefore) / 10
	wait := min(time.Hour, tenth)
	return issued.Add(wait + time.Duration(rand.Int64N(int64(min(5*time.Hour, tenth))+1)))
}

func describe(cert *x509.Certificate, b *Bundle) Leaf {
	sum := sha256.Sum256(cert.Raw)
	return Leaf{Hostnames: b.Hostnames, NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(),
		Serial: hex.EncodeToString(cert.SerialNumber.Bytes()), Fingerprint: hex.EncodeToString(sum[:]),
		Issuer: cert.Issuer.CommonName, CA: b.CA}
}
