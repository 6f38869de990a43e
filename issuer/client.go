package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

const (
	directoryAge = 12 * time.Hour
	freshAge     = time.Minute // of a directory that says that something isn't offered

	callTimeout    = 2 * time.Minute // one call of the library, with all that it repeats
	mostAlternates = 10              // alternate chains that are looked at
)

// client wraps the ACME library: the directory is fetched by us, replies are checked before the library reads them (see
// replies.go), and every call ends.
type client struct {
	cfg      Config
	http     *http.Client
	fetching chan struct{} // held while the directory is fetched
	known    atomic.Pointer[known]
}

// known is a directory and the library's client for it. The library caches directories by URL, and fetches them under a lock
// that all clients of the process share: one CA that doesn't answer would block all others. So each directory that we
// fetched gets a client of its own, under a URL that is never requested.
type known struct {
	directory acme.Directory
	fetched   time.Time
	text      []byte
	library   *acme.Client
}

func newClient(cfg Config, base http.RoundTripper) *client {
	return &client{cfg: cfg, fetching: make(chan struct{}, 1), http: &http.Client{
		Transport: &observer{base: base, hosts: hostsOf(cfg)}, CheckRedirect: checkRedirect, Timeout: requestTimeout}}
}

// within returns a directory that isn't older than age.
func (c *client) within(ctx context.Context, age time.Duration) (*known, error) {
	if k := c.known.Load(); k != nil && time.Since(k.fetched) < age {
		return k, nil
	}
	select {
	case c.fetching <- struct{}{}:
		defer func() { <-c.fetching }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	before := c.known.Load()
	if before != nil && time.Since(before.fetched) < age { // it was fetched meanwhile
		return before, nil
	}
	k, err := c.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if before != nil && bytes.Equal(before.text, k.text) {
		k.library = before.library // it has nonces
	}
	c.known.Store(k)
	return k, nil
}

func (c *client) fetch(ctx context.Context) (*known, error) {
	k := &known{fetched: time.Now()}
	if err := c.getJSON(ctx, c.cfg.Directory, directoryShape(), &k.directory); err != nil {
		return nil, err
	}
	d := &k.directory
	if d.NewOrder == "" || d.NewNonce == "" || d.NewAccount == "" {
		return nil, errors.New("what answered isn't an ACME directory: newOrder, newNonce or newAccount is missing")
	}
	for _, url := range []string{d.NewNonce, d.NewAccount, d.NewOrder} { // the others aren't needed for certificates, and are checked when they are used
		if err := c.leads(url); err != nil {
			return nil, err
		}
	}
	shown := *d
	shown.RenewalInfo = "" // the library would ask for it while a certificate is being fetched, and wait seconds for it
	var err error
	if k.text, err = json.Marshal(shown); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(k.text)
	k.library = &acme.Client{
		Directory:  c.cfg.Directory + "#" + hex.EncodeToString(sum[:]), // see observer.RoundTrip
		HTTPClient: c.http,
		UserAgent:  c.cfg.UserAgent,
		// The library polls at a fixed pace after finalizing. A timeout of next to nothing prevents that; see order.poll.
		PollInterval: time.Nanosecond,
		PollTimeout:  time.Nanosecond,
	}
	return k, nil
}

// getJSON fetches what needs no account: the directory and renewal information.
func (c *client) getJSON(ctx context.Context, url string, want shape, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err := statusError(req.URL, resp.StatusCode)
		if p, _, ok := readProblem(resp.StatusCode, body); ok {
			err = fmt.Errorf("%w: %s", err, (&problemError{p}).Error())
		}
		return err
	}
	if body, err = readObject(body, want); err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("the reply of %s can't be read: %w", where(url), err)
	}
	return nil
}

// leads is an error when a URL leads to where the CA may not lead to.
func (c *client) leads(to string) error {
	u, err := url.Parse(to)
	odd := strings.ContainsFunc(to, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || odd || len(to) > maxURL {
		return fmt.Errorf("the CA leads to %q, which isn't a URL", where(to))
	}
	return allowed(u, hostsOf(c.cfg))
}

// do makes one call of the library.
func (c *client) do(ctx context.Context, what *libraryCall, request func(ctx context.Context, library *acme.Client) error) error {
	k, err := c.within(ctx, directoryAge)
	if err != nil {
		return err
	}
	inner, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no result within %s", callTimeout))
	defer cancel()
	inner, what.stop = context.WithCancelCause(inner)
	defer what.stop(nil)
	what.directory = k.text
	err = request(with(inner, func(f *facts) { f.library = what }), k.library)
	switch ended := (*endError)(nil); {
	case ctx.Err() != nil && err != nil:
		return context.Cause(ctx)
	case errors.As(context.Cause(inner), &ended):
		return ended.error
	case err != nil && inner.Err() != nil:
		return context.Cause(inner)
	}
	return err
}

// get fetches an object by a POST-as-GET (RFC 8555 section 6.3). Whatever the object is, the library is asked for an order: it
// sends the same request, and the reply is decoded here.
func (c *client) get(ctx context.Context, want shape, account acme.Account, url string, into any) error {
	what := &libraryCall{want: want}
	err := c.do(ctx, what, func(ctx context.Context, library *acme.Client) error {
		_, err := library.GetOrder(ctx, account, acme.Order{Location: url})
		return err
	})
	if err != nil {
		return err
	}
	return json.Unmarshal(what.object, into)
}

// post sends a signed request (RFC 8555 section 6.2) and returns the Location of the reply. Only the library's request for
// challenges lets the caller choose the payload, so all requests are sent by it. The library's own newOrder sends fields that
// a client must not set, and its finalize polls, and returns the order as it was before.
func (c *client) post(ctx context.Context, what libraryCall, account acme.Account, url string, payload, into any) (location string, err error) {
	err = c.do(ctx, &what, func(ctx context.Context, library *acme.Client) error {
		_, err := library.InitiateChallenge(ctx, account, acme.Challenge{URL: url, Payload: payload})
		return err
	})
	if err != nil {
		return "", err
	}
	return what.location, json.Unmarshal(what.object, into)
}

// GetDirectory returns the CA's directory.
func (c *client) GetDirectory(ctx context.Context, age time.Duration) (acme.Directory, error) {
	k, err := c.within(ctx, age)
	if err != nil {
		return acme.Directory{}, err
	}
	return k.directory, nil
}

// NewAccount registers an account, or finds the one that there is for the key.
func (c *client) NewAccount(ctx context.Context, account acme.Account, eab *EAB) (acme.Account, error) {
	if eab != nil {
		err := c.do(ctx, &libraryCall{}, func(ctx context.Context, library *acme.Client) error {
			return account.SetExternalAccountBinding(ctx, library, acme.EAB{KeyID: eab.KeyID, MACKey: eab.HMACKey})
		})
		if err != nil {
			return account, err
		}
	}
	return c.accountBy(ctx, account, (*acme.Client).NewAccount)
}

// FindAccount finds the account of a key (RFC 8555 section 7.3.1).
func (c *client) FindAccount(ctx context.Context, key crypto.Signer) (acme.Account, error) {
	return c.accountBy(ctx, acme.Account{PrivateKey: key}, (*acme.Client).GetAccount)
}

func (c *client) accountBy(ctx context.Context, account acme.Account, request func(*acme.Client, context.Context, acme.Account) (acme.Account, error)) (acme.Account, error) {
	err := c.do(ctx, &libraryCall{want: accountShape(), empty: true}, func(ctx context.Context, library *acme.Client) (err error) {
		account, err = request(library, ctx, account)
		return err
	})
	if err == nil {
		err = c.located("account", account.Location)
	}
	return account, err
}

// located is an error unless the CA has said where it put something that it made.
func (c *client) located(what, location string) error {
	if location == "" {
		return fmt.Errorf("the CA doesn't say where the %s is: its reply has no Location", what)
	}
	return c.leads(location)
}

// GetAccount fetches an account by its URL (RFC 8555 section 7.1.2).
func (c *client) GetAccount(ctx context.Context, account acme.Account) (got acme.Account, err error) {
	if err = c.get(ctx, accountShape(), account, account.Location, &got); err == nil && got.Status == "" {
		err = errors.New("what answered isn't an account: it has no status")
	}
	return got, err
}

// UpdateAccount changes the fields of the account that the payload has.
func (c *client) UpdateAccount(ctx context.Context, account acme.Account, payload map[string]any) error {
	var got acme.Account
	_, err := c.post(ctx, libraryCall{want: accountShape(), empty: true}, account, account.Location, payload, &got)
	return err
}

// AccountKeyRollover gives the account another key.
func (c *client) AccountKeyRollover(ctx context.Context, account acme.Account, next crypto.Signer) error {
	return c.do(ctx, &libraryCall{}, func(ctx context.Context, library *acme.Client) error {
		_, err := library.AccountKeyRollover(ctx, account, next)
		return err
	})
}

// newOrder is the payload of a new order (RFC 8555 section 7.4, RFC 9773 section 5).
type newOrder struct {
	Identifiers []acme.Identifier `json:"identifiers"`
	Profile     string            `json:"profile,omitempty"`
	Replaces    string            `json:"replaces,omitempty"`
}

// NewOrder makes an order. It is sent twice at most, since each reply that is lost leaves an order behind.
func (c *client) NewOrder(ctx context.Context, account acme.Account, order newOrder) (got acme.Order, err error) {
	dir, err := c.GetDirectory(ctx, directoryAge)
	if err != nil {
		return got, err
	}
	location, err := c.post(ctx, libraryCall{want: orderShape(), lasting: true}, account, dir.NewOrder, order, &got)
	if err == nil {
		err = c.located("order", location)
	}
	if err == nil {
		err = orderStatus(got)
	}
	got.Location = location
	return got, err
}

// GetOrder fetches an order.
func (c *client) GetOrder(ctx context.Context, account acme.Account, url string) (got acme.Order, err error) {
	if err = c.get(ctx, orderShape(), account, url, &got); err == nil {
		err = orderStatus(got)
	}
	got.Location = url
	return got, err
}

// orderStatus is an error when an order has no status that an order can have (RFC 8555 section 7.1.6).
func orderStatus(order acme.Order) error {
	switch order.Status {
	case acme.StatusPending, acme.StatusReady, acme.StatusProcessing, acme.StatusValid, acme.StatusInvalid:
		return nil
	case "":
		return errors.New("what the CA sends isn't an order: it has no status")
	}
	return fmt.Errorf("an order can't be %q", order.Status)
}

// FinalizeOrder sends the CSR (RFC 8555 section 7.4) and returns the order. Some CAs reply without the order; then it is
// fetched.
func (c *client) FinalizeOrder(ctx context.Context, account acme.Account, order acme.Order, csr []byte) (got acme.Order, err error) {
	payload := map[string]string{"csr": base64.RawURLEncoding.EncodeToString(csr)}
	_, err = c.post(ctx, libraryCall{want: orderShape(), empty: true}, account, order.Finalize, payload, &got)
	if err == nil && orderStatus(got) != nil {
		return c.GetOrder(ctx, account, order.Location)
	}
	got.Location = order.Location
	return got, err
}

// GetAuthorization fetches an authorization.
func (c *client) GetAuthorization(ctx context.Context, account acme.Account, url string) (got acme.Authorization, err error) {
	if err = c.get(ctx, authorizationShape(), account, url, &got); err == nil && got.Status == "" {
		err = errors.New("what the CA sends isn't an authorization: it has no status")
	}
	got.Location = url
	return got, err
}

// DeactivateAuthorization gives an authorization up (RFC 8555 section 7.5.2).
func (c *client) DeactivateAuthorization(ctx context.Context, account acme.Account, url string) error {
	var got acme.Authorization
	_, err := c.post(ctx, libraryCall{want: authorizationShape(), empty: true}, account, url, map[string]string{"status": acme.StatusDeactivated}, &got)
	return err
}

// InitiateChallenge has the CA look (RFC 8555 section 7.5.1).
func (c *client) InitiateChallenge(ctx context.Context, account acme.Account, url string) (got acme.Challenge, err error) {
	_, err = c.post(ctx, libraryCall{want: challengeShape(), empty: true}, account, url, struct{}{}, &got)
	return got, err
}

// GetCertificateChain downloads a certificate with its chain, and on request its alternates (RFC 8555 section 7.4.2), as far
// as they can be downloaded.
func (c *client) GetCertificateChain(ctx context.Context, account acme.Account, url string, alternates bool) ([]acme.Certificate, error) {
	chains, others, err := c.chain(ctx, account, url)
	if err != nil || !alternates {
		return chains, err
	}
	others = slices.DeleteFunc(others, func(other string) bool { return c.leads(other) != nil })
	for _, other := range others[:min(len(others), mostAlternates)] {
		more, _, err := c.chain(ctx, account, other)
		if err != nil {
			c.cfg.Logger.Debug("an alternate chain can't be had", "ca", c.cfg.Name, "url", where(other), "err", err)
			continue
		}
		chains = append(chains, more...)
	}
	return chains, nil
}

func (c *client) chain(ctx context.Context, account acme.Account, url string) (chains []acme.Certificate, alternates []string, err error) {
	what := &libraryCall{chain: true}
	err = c.do(ctx, what, func(ctx context.Context, library *acme.Client) (err error) {
		chains, err = library.GetCertificateChain(ctx, account, url)
		return err
	})
	return chains, what.alternates, err
}

// RevokeCertificate revokes a certificate (RFC 8555 section 7.6).
func (c *client) RevokeCertificate(ctx context.Context, account acme.Account, cert *x509.Certificate, key crypto.Signer, reason int) error {
	return c.do(ctx, &libraryCall{}, func(ctx context.Context, library *acme.Client) error {
		return library.RevokeCertificate(ctx, account, cert, key, reason)
	})
}
