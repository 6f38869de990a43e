package issuer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mholt/acmez/v3/acme"
)

// Reason is why a certificate is revoked (RFC 5280 section 5.3.1).
type Reason int

// The reasons that callers decide by.
const (
	Unspecified   Reason = acme.ReasonUnspecified
	KeyCompromise Reason = acme.ReasonKeyCompromise
)

// reasons are the names of RFC 5280. Those missing are unused, or for entries of a CRL that end a revocation.
func reasons() map[Reason]string {
	return map[Reason]string{
		Unspecified: "unspecified", KeyCompromise: "keyCompromise", acme.ReasonCACompromise: "cACompromise",
		acme.ReasonAffiliationChanged: "affiliationChanged", acme.ReasonSuperseded: "superseded",
		acme.ReasonCessationOfOperation: "cessationOfOperation", acme.ReasonCertificateHold: "certificateHold",
		acme.ReasonPrivilegeWithdrawn: "privilegeWithdrawn", acme.ReasonAACompromise: "aACompromise",
	}
}

// publicReasons are those that public CAs take from subscribers.
const publicReasons = "unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation"

// PublicReasons returns the names of those reasons.
func PublicReasons() []string { return strings.Split(publicReasons, ", ") }

// String is the name of the reason (RFC 5280, section 5.3.1).
func (r Reason) String() string { return reasons()[r] }

// ParseReason reads a reason by its name, in any case, or its number.
func ParseReason(text string) (Reason, error) {
	number, err := strconv.Atoi(text)
	for r, name := range reasons() {
		if err == nil && Reason(number) == r || strings.EqualFold(name, text) {
			return r, nil
		}
	}
	return 0, fmt.Errorf("there is no reason %q to revoke; CAs take %s", text, publicReasons)
}

// ErrAlreadyRevoked says that the certificate was revoked before.
var ErrAlreadyRevoked = errors.New("the certificate was revoked before")

// Revoke has the CA revoke a certificate (RFC 8555 section 7.6). The request is signed by the certificate's own key, for
// which no account is needed, or by the account's where key is nil.
func (i *Issuer) Revoke(ctx context.Context, cert *x509.Certificate, key crypto.Signer, reason Reason) error {
	var account acme.Account
	if key == nil {
		err := i.exclusively(ctx, func(ctx context.Context, w accountWriter) (err error) {
			account, err = i.existing(ctx, w)
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := i.call(ctx, "revocation", func(ctx context.Context) error {
		return i.client.RevokeCertificate(ctx, account, cert, key, int(reason))
	})
	if isProblem(err, acme.ProblemTypeAlreadyRevoked) {
		return ErrAlreadyRevoked
	}
	hint := ""
	switch {
	case isProblem(err, acme.ProblemTypeBadRevocationReason):
		hint = "public CAs take " + publicReasons
	case key == nil && isProblem(err, acme.ProblemTypeUnauthorized):
		hint = "another account has ordered it; sign with the certificate's own key instead: --key FILE"
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Hint == "" {
		e.Hint = hint
	}
	return err
}

// NotEntitled reports whether err says that the account may not revoke a certificate, or that there is no account. The
// certificate's own key may.
func NotEntitled(err error) bool {
	return noAccount(err) ||
		isProblem(err, acme.ProblemTypeUnauthorized, acme.ProblemTypeAccountDoesNotExist)
}
