package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// ErrNoRenewalInfo says that the CA doesn't offer renewal information.
var ErrNoRenewalInfo = errors.New("the CA offers no renewal information")

// Suggestion is the window in which the CA wants a certificate renewed (RFC 9773 section 4.2).
type Suggestion struct {
	Start, End     time.Time
	ExplanationURL string
	RetryAfter     time.Time // when to ask again; zero when the CA didn't say
}

// RenewalInfo asks the CA when it wants the certificate renewed. It is one request without retries, and none of it is
// on the way of an issuance. A window that makes no sense is an error: the caller's own rule holds then.
func (i *Issuer) RenewalInfo(ctx context.Context, cert *x509.Certificate) (Suggestion, error) {
	dir, err := i.Directory(ctx)
	if err != nil {
		return Suggestion{}, err
	}
	if dir.RenewalInfo == "" {
		return Suggestion{}, ErrNoRenewalInfo
	}
	id, err := acme.ARIUniqueIdentifier(cert)
	if err != nil || len(cert.AuthorityKeyId) == 0 {
		return Suggestion{}, ErrNoRenewalInfo // the CA can't know the certificate by it
	}
	var info acme.RenewalInfo
	noted, err := i.getJSON(ctx, dir.RenewalInfo+"/"+id, renewalShape(), &info)
	if err != nil {
		return Suggestion{RetryAfter: noted.retryAfter}, i.failed("renewal information", noted, err)
	}
	s := Suggestion{Start: info.SuggestedWindow.Start, End: info.SuggestedWindow.End, ExplanationURL: webPage(info.ExplanationURL), RetryAfter: noted.retryAfter}
	if s.Start.IsZero() || !s.End.After(s.Start) {
		return Suggestion{RetryAfter: s.RetryAfter}, i.explain("renewal information",
			fmt.Errorf("the CA suggests a window that makes no sense: %s to %s", s.Start.Format(time.RFC3339), s.End.Format(time.RFC3339)))
	}
	return s, nil
}

// webPage returns the address of a page for people, "" when it is none: it is shown on terminals.
func webPage(text string) string {
	u, err := url.Parse(text)
	strange := strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || strange || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	return text
}
