package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Directory returns the CA's directory (RFC 8555 section 7.1.1), at most twelve hours old.
func (i *Issuer) Directory(ctx context.Context) (acme.Directory, error) {
	return i.directoryWithin(ctx, directoryAge)
}

func (i *Issuer) directoryWithin(ctx context.Context, age time.Duration) (dir acme.Directory, err error) {
	_, err = i.call(ctx, "directory", func(ctx context.Context) (err error) {
		dir, err = i.client.GetDirectory(ctx, age)
		return err
	})
	return dir, err
}

// checkProfile refuses a profile that the CA doesn't offer, before anything is ordered.
func (i *Issuer) checkProfile(ctx context.Context, profile string) error {
	if profile == "" {
		return nil
	}
	var offered map[string]string
	for _, age := range []time.Duration{directoryAge, freshAge} {
		dir, err := i.directoryWithin(ctx, age)
		if err != nil {
			return err
		}
		if dir.Meta != nil {
			offered = dir.Meta.Profiles
		}
		if _, ok := offered[profile]; ok {
			return nil
		}
	}
	e := &Error{CA: i.cfg.Name, Step: "order", Err: fmt.Errorf("the CA has no profiles, so that it can't offer %q", profile),
		Hint: "leave profile out"}
	if len(offered) > 0 {
		var list []string
		for _, name := range slices.Sorted(maps.Keys(offered)) {
			list = append(list, fmt.Sprintf("%q (%s)", name, offered[name]))
		}
		e.Err, e.Hint = fmt.Errorf("the CA doesn't offer the profile %q", profile), "it offers "+strings.Join(list, ", ")
	}
	return e
}

// Probe holds facts about a CA: from its directory, and from how it answers.
type Probe struct {
	Terms         string            // URL of the terms of service, "" when it names none
	CAAIdentities []string          // its names in CAA records (RFC 8659)
	Profiles      map[string]string // offered, with the CA's description of each; empty when it has no profiles
	NeedsEAB      bool              // accounts need an external account binding
	Took          time.Duration     // until the directory was there
	Ahead         time.Duration     // how far this machine's clock is ahead of the CA's, to the second
	Clock         bool              // Ahead is known
}

// Probe asks the CA for its directory and a nonce. Nothing is registered or ordered.
func (i *Issuer) Probe(ctx context.Context) (Probe, error) {
	begin := time.Now()
	dir, err := i.Directory(ctx)
	if err != nil {
		return Probe{}, err
	}
	p := Probe{Took: time.Since(begin)}
	if meta := dir.Meta; meta != nil {
		p.Terms, p.CAAIdentities, p.Profiles, p.NeedsEAB = meta.TermsOfService, meta.CAAIdentities, meta.Profiles, meta.ExternalAccountRequired
	}
	if p.Ahead, p.Clock, err = i.clock(ctx, dir.NewNonce); err != nil {
		return p, i.cfg.explain("nonce", err)
	}
	return p, nil
}

// clock compares this machine's clock with the CA's Date. It is asked where nothing on the way may answer from a cache
// (RFC 8555 section 7.2).
func (i *Issuer) clock(ctx context.Context, url string) (ahead time.Duration, known bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return 0, false, err
	}
	req.Header.Set("User-Agent", i.cfg.UserAgent)
	begin := time.Now()
	resp, err := i.http.Do(req)
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 || resp.Header.Get("Replay-Nonce") == "" {
		return 0, false, fmt.Errorf("%s answers HTTP %d and gives no nonce", url, resp.StatusCode)
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, false, nil // a server without a clock needs none (RFC 9110 section 6.6.1)
	}
	// The Date has whole seconds, cut off, and was written while we waited.
	ours := begin.Add(time.Since(begin) / 2)
	return ours.Sub(date.Add(time.Second / 2)).Round(time.Second), true, nil
}

// ErrNoRenewalInfo says that the CA doesn't offer renewal information.
var ErrNoRenewalInfo = errors.New("the CA offers no renewal information")

// Suggestion is the window in which the CA wants a certificate renewed (RFC 9773 section 4.2).
type Suggestion struct {
	Start, End     time.Time
	ExplanationURL string
	RetryAfter     time.Time // when to ask again; zero when the CA didn't say
}

// RenewalInfo asks the CA when it wants the certificate renewed: one request, without retries, and never during an issuance.
// A window that makes no sense is an error; the caller's own rule applies then.
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
	r, err := i.call(ctx, "renewal information", func(ctx context.Context) error {
		return i.client.getJSON(ctx, dir.RenewalInfo+"/"+id, renewalShape(), &info)
	})
	if err != nil {
		return Suggestion{RetryAfter: r.retryAfter}, err
	}
	window := info.SuggestedWindow
	s := Suggestion{Start: window.Start, End: window.End, ExplanationURL: webPage(info.ExplanationURL), RetryAfter: r.retryAfter}
	if s.Start.IsZero() || !s.End.After(s.Start) {
		return Suggestion{RetryAfter: s.RetryAfter}, i.cfg.explain("renewal information",
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
