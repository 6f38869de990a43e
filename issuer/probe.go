package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Probe is what a CA says of itself, and what its answers tell besides.
type Probe struct {
	Terms         string            // URL of the terms of service, "" when it names none
	CAAIdentities []string          // what CAA records call it (RFC 8659)
	Profiles      map[string]string // those offered, with what the CA says of each; empty when it knows no profiles
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
		return p, i.explain("nonce", err)
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

// AccountState is what became of our account at the CA.
type AccountState struct {
	URL     string // "" when none is registered
	Status  string // as the CA says (RFC 8555 section 7.1.6): "valid", "deactivated", "revoked"
	Unknown bool   // the CA has forgotten the account; the next order registers its key again
}

// AccountState asks the CA for our account, as it is stored. It never registers one.
func (i *Issuer) AccountState(ctx context.Context) (AccountState, error) {
	saved, key, err := i.loadAccount(ctx, AccountKey(i.cfg.Name, i.cfg.Directory))
	if err != nil || saved.URL == "" {
		return AccountState{}, err
	}
	state := AccountState{URL: saved.URL}
	account := acme.Account{Location: saved.URL, PrivateKey: key}
	ctx, noted := observe(ctx)
	// The library's requests for an account are updates, or may register. An order is fetched by a POST-as-GET, which is
	// how an account is to be asked for too (RFC 8555 section 7.3), and both have a status.
	answer, err := i.client.getStatus(ctx, account, acme.Order{Location: saved.URL})
	switch {
	case isProblem(err, acme.ProblemTypeAccountDoesNotExist):
		state.Unknown = true
		return state, nil
	case isProblem(err, acme.ProblemTypeUnauthorized): // what a deactivated account hears (section 7.3.6)
		state.Status = acme.StatusDeactivated
		return state, nil
	case err != nil:
		return state, i.failed("account", noted, err)
	case answer.Status == "":
		return state, i.explain("account", errors.New("what answered isn't an account: it has no status"))
	}
	state.Status = answer.Status
	return state, nil
}
