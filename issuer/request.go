package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"autocertd/internal/dnsname"
)

// Request describes the certificate that is wanted.
type Request struct {
	Hostnames []string // normalised: lower case, ASCII, no duplicates
	KeyType   KeyType
	Profile   string // "" for the issuer's
	// Key is the key to use once more, PKCS #8 PEM; nil for a new one.
	Key []byte
	// CSR is a certificate signing request (PKCS #10, DER) for a key that stays elsewhere. The bundle has no key then.
	CSR []byte
	// Replaces is the certificate that this one renews, issued by this CA to this account; nil at the first time.
	Replaces *x509.Certificate
	// InUse is the certificate that services have now, from whichever CA; nil when there is none.
	InUse *x509.Certificate
	// HasFallback says that another CA can serve the request: this one isn't asked while it doesn't answer.
	HasFallback bool
	// Domains are the registered domains of the hostnames, by which CAs count. Nil when they aren't known.
	Domains []string
	// Exempt says that none of the CA's limits applies, since it suggested the renewal.
	Exempt bool
	// Open is the order that an earlier attempt left, nil when there is none.
	Open *OpenOrder
	// Orders stores the open order.
	Orders OrderKeeper
	// Solver publishes the records; nil is the issuer's.
	Solver Solver
	// Progress is called after each step; nil is fine.
	Progress func(Step)
}

// OrderKeeper stores the open order of one certificate. Keep returns nil when the order is durable.
type OrderKeeper interface {
	Keep(ctx context.Context, order OpenOrder) error
	Drop(ctx context.Context) error
}

// Voider is an OrderKeeper that distinguishes orders that the CA gave up: Void is called for them instead of Drop.
type Voider interface {
	Void(ctx context.Context) error
}

// OpenOrder is an order as it is stored, so that it can go on after a crash. It holds the certificate's private key.
type OpenOrder struct {
	URL       string    `json:"url"`
	Account   string    `json:"account"` // account URL
	Hostnames []string  `json:"hostnames"`
	KeyType   KeyType   `json:"key_type"`
	Profile   string    `json:"profile,omitempty"`
	Key       string    `json:"key"` // PKCS #8 PEM; "" with a CSR
	CSR       []byte    `json:"csr,omitempty"`
	Created   time.Time `json:"created"`
	Replaces  bool      `json:"replaces,omitempty"` // the CA accepted it as the renewal of a certificate (RFC 9773 section 5)

	// ByHand are the records that a person was asked to publish, and Expires is until when that makes sense.
	ByHand  []Record  `json:"by_hand,omitempty"`
	Expires time.Time `json:"expires,omitzero"`

	// Failures counts the attempts that failed by the CA's fault: an authorization for another name, or a certificate that
	// can't be downloaded or read.
	Failures int `json:"failures,omitempty"`
	// Waited says that an attempt has waited for the certificate without success.
	Waited bool `json:"waited,omitempty"`
}

// mostFailures is the number of Failures after which an order is dropped: the CA may have lost its objects.
const mostFailures = 3

// fits reports whether the order is for the request.
func (o *OpenOrder) fits(req Request, account string) bool {
	return o.Account == account && o.KeyType == req.KeyType && o.Profile == req.Profile &&
		bytes.Equal(o.CSR, req.CSR) && (req.Key == nil || o.Key == string(req.Key)) &&
		dnsname.Same(o.Hostnames, req.Hostnames)
}

// Step is a step that an order has just taken. Have and Want count servers, for the step Seen.
type Step struct {
	Name       StepName
	Have, Want int
}

// StepName names a step of an issuance.
type StepName string

// The steps, in the order in which they happen. An order that is resumed, or whose authorizations are still valid,
// skips some.
const (
	Resumed   StepName = "resumed"
	Ordered   StepName = "ordered"
	Proven    StepName = "proven" // no record is needed: the authorizations are valid, or the CA works on the order already
	Published StepName = "published"
	Seen      StepName = "seen"
	Validated StepName = "validated"
	Issued    StepName = "issued"
)

// Bundle is an issued certificate with its key and chain.
type Bundle struct {
	Key     []byte // PKCS #8 PEM; nil for a CSR
	Leaf    []byte // PEM
	Chain   []byte // PEM, the certificates above the leaf
	Account string // URL of the account that ordered it
	Order   string // URL of the order
	Cert    *x509.Certificate
}

// orderKey is the key of an order's certificate: one of ours, or one that stays elsewhere, of which only the signed request is
// known.
type orderKey struct {
	signer crypto.Signer // nil for a key that stays elsewhere
	pem    []byte        // of signer, PKCS #8
	csr    []byte        // DER, for a key that stays elsewhere
	public crypto.PublicKey
}

// keyOf returns the key of an order: that of the request's CSR, else the given one, else a new one.
func (r Request) keyOf(text []byte) (k orderKey, err error) {
	if r.CSR != nil {
		csr, err := x509.ParseCertificateRequest(r.CSR)
		if err != nil {
			return k, fmt.Errorf("the CSR can't be read: %w", err)
		}
		return orderKey{csr: r.CSR, public: csr.PublicKey}, nil
	}
	if text != nil {
		k.signer, err = decodeKey(text)
	} else {
		k.signer, err = newKey(r.KeyType)
	}
	if err != nil {
		return k, err
	}
	k.public = k.signer.Public()
	k.pem, err = encodeKey(k.signer)
	return k, err
}

// request returns the CSR that finalizes the order (RFC 8555 section 7.4): the hostnames as subject alternative names and
// nothing else.
func (k orderKey) request(hostnames []string) ([]byte, error) {
	if k.csr != nil {
		return k.csr, nil
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: hostnames}, k.signer)
}

// ZoneLine is the record as a line of a zone file.
func (r Record) ZoneLine() string {
	return fmt.Sprintf("%s.\t%d\tIN\tTXT\t%q", r.Name, ByHandTTL, r.Value)
}

// ByHandTTL is the TTL in seconds of records that a person publishes.
const ByHandTTL = 300

// ByHandError says that an order waits for a person to publish records. It is no failure: the order stays open, and goes
// on when the records are there.
type ByHandError struct {
	Records []Record // all that a person publishes
	Missing []string // a sentence for each server that lacks some
}

func (e *ByHandError) Error() string {
	var lines []string
	for _, r := range e.Records {
		lines = append(lines, r.ZoneLine())
	}
	text := "a person must add to the zone: " + strings.ReplaceAll(strings.Join(lines, "; "), "\t", " ")
	if len(e.Missing) > 0 {
		text += " (" + strings.Join(e.Missing, "; ") + ")"
	}
	return text
}

// Looker is a Solution that can check for records that a person publishes.
type Looker interface {
	// Look returns a *ByHandError while one of the records is missing that only a person can publish.
	Look(ctx context.Context, records []Record) error
}
