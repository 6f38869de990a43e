package providers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/libdns/cloudflare"
	"github.com/libdns/libdns"

	"autocertd/internal/dnsname"
	"autocertd/internal/secret"
)

// Cloudflare takes these TTLs besides 1, which means automatic.
const (
	cloudflareMinTTL = time.Minute
	cloudflareMaxTTL = 24 * time.Hour
)

// hideTime is how long a record that was confirmed may be missing from Cloudflare's search, by our patience.
const hideTime = 10 * time.Minute

// cloudflareOptions are the keys of a provider of type cloudflare.
type cloudflareOptions struct {
	APIToken  secret.Secret `toml:"api_token"`
	ZoneToken secret.Secret `toml:"zone_token"`
}

// newCloudflare builds a provider that writes through Cloudflare's API.
func newCloudflare(opts Options) (*Provider, error) {
	var o cloudflareOptions
	if err := opts.Decode(&o); err != nil {
		return nil, err
	}
	var errs []error
	if !o.APIToken.IsSet() {
		errs = append(errs, at("api_token", errors.New("missing; make one with the permissions Zone.DNS:Edit and Zone.Zone:Read at https://dash.cloudflare.com/profile/api-tokens")))
	}
	if !isToken(o.APIToken.Reveal()) {
		errs = append(errs, at("api_token", errors.New("holds blanks or other characters that no token has; copy it again")))
	}
	if !isToken(o.ZoneToken.Reveal()) {
		errs = append(errs, at("zone_token", errors.New("holds blanks or other characters that no token has; copy it again")))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	client := &http.Client{
		Timeout: 15 * time.Second,
		// The API never redirects, and a token isn't to follow one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Provider{Client: &cloudflareClient{options: o, http: client, recent: memory{keep: hideTime}}}, nil
}

// isToken reports whether s can stand in an Authorization header.
func isToken(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// cloudflareClient writes one record per request, as the API does.
type cloudflareClient struct {
	options cloudflareOptions
	http    cloudflare.HTTPClient

	// recent are the records that the API has confirmed lately. A search that doesn't show one of them lags behind; for
	// any other record it is believed.
	recent memory
}

// AppendRecords adds recs to the zone, with their TTL brought into the range that Cloudflare takes, and returns them.
func (c *cloudflareClient) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.each(ctx, zone, recs, func(_ *cloudflareCall, p *cloudflare.Provider, zone string, rec libdns.TXT) error {
		_, err := p.AppendRecords(ctx, zone, []libdns.Record{rec})
		if refusedWith(err, codeIdentical) {
			err = nil
		}
		if err == nil {
			c.recent.add(identity(rec, zone))
		}
		return err
	})
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *cloudflareClient) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.each(ctx, zone, recs, func(api *cloudflareCall, p *cloudflare.Provider, zone string, rec libdns.TXT) error {
		removed, err := p.DeleteRecords(ctx, zone, []libdns.Record{rec})
		if err == nil {
			// The library takes a failed lookup for an absent record; the call saw the difference.
			err = api.err
		}
		if api.found { // so that the search has caught up: from now on it is believed
			c.recent.remove(identity(rec, zone))
		}
		if refusedWith(err, codeNoRecord) {
			err = nil // somebody else removed it after the lookup
		} else if err == nil && len(removed) == 0 && c.recent.has(identity(rec, zone)) {
			err = errHidden
		}
		return err
	})
}

func identity(rec libdns.TXT, zone string) string {
	return libdns.AbsoluteName(rec.Name, zone) + " " + rec.Text
}

// writeOne adds or removes one record.
type writeOne func(*cloudflareCall, *cloudflare.Provider, string, libdns.TXT) error

// each looks up the zone once and writes recs one after the other.
func (c *cloudflareClient) each(ctx context.Context, zone string, recs []libdns.Record, write writeOne) ([]libdns.Record, error) {
	zone, txts, err := relativeRecords(zone, recs)
	if err != nil {
		return nil, err
	}
	api := &cloudflareCall{http: c.http}
	p := &cloudflare.Provider{APIToken: c.options.APIToken.Reveal(), ZoneToken: c.options.ZoneToken.Reveal(), HTTPClient: api}
	for i := range txts {
		rec := &txts[i]
		name := dnsname.Canonical(libdns.AbsoluteName(rec.Name, zone))
		rec.TTL = min(max(rec.TTL, cloudflareMinTTL), cloudflareMaxTTL)
		err := ctx.Err()
		if err == nil {
			err = write(api, p, zone, *rec)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("write %s in zone %s at Cloudflare: %w", name, zone, ctx.Err())
		}
		if err != nil {
			return nil, c.explain(err, zone, name)
		}
	}
	return asRecords(txts), nil
}

// explain translates a failure of the library or of the call.
func (c *cloudflareClient) explain(err error, zone, name string) *Error {
	e := &Error{Err: err, whole: true}
	refusal, refused := errors.AsType[*cloudflareRefusal](err)
	urlErr, isURL := errors.AsType[*url.Error](err)
	switch {
	case errors.Is(err, errNoZone):
		e.Problem = fmt.Sprintf("Cloudflare has no zone %s that %s may see", zone, c.lookupToken())
		e.Hint = fmt.Sprintf("add zone %s to the token's zone resources, with the permission Zone.Zone:Read, at https://dash.cloudflare.com/profile/api-tokens", zone)
	case refused && refusal.ofToken():
		token := "api_token"
		if refusal.lookup {
			token = c.lookupToken()
		}
		e.Problem = fmt.Sprintf("Cloudflare refused %s for zone %s (%s)", token, zone, refusal)
		e.Hint = fmt.Sprintf("the token needs the permissions Zone.DNS:Edit and Zone.Zone:Read for zone %s: https://dash.cloudflare.com/profile/api-tokens", zone)
	case refused && refusal.temporary():
		e.Problem, e.retryable = fmt.Sprintf("Cloudflare can't write %s in zone %s now (%s)", name, zone, refusal), true
		e.Hint = "it is tried again later; see https://www.cloudflarestatus.com"
	case refused:
		e.Problem, e.whole = fmt.Sprintf("Cloudflare refused the TXT record at %s in zone %s (%s)", name, zone, refusal), false
	case errors.Is(err, errHidden):
		e.Problem, e.retryable = fmt.Sprintf("Cloudflare's search doesn't show the TXT record at %s in zone %s that it has confirmed, so it isn't removed", name, zone), true
		e.Hint = fmt.Sprintf("it is tried again; if somebody else removed it, that is believed after %v", hideTime)
	case errors.Is(err, errBadReply):
		e.Problem, e.retryable = fmt.Sprintf("Cloudflare's answer about %s in zone %s can't be understood: %v", name, zone, err), true
		e.Hint = "perhaps a proxy answers in its place: curl -i https://api.cloudflare.com/client/v4/ips"
	case isURL && urlErr.Timeout():
		e.Problem, e.retryable = fmt.Sprintf("Cloudflare's API doesn't answer about %s in zone %s (timeout)", name, zone), true
		e.Hint = "see whether it answers: curl -i https://api.cloudflare.com/client/v4/ips"
	case isURL:
		e.Problem, e.retryable = fmt.Sprintf("Cloudflare's API can't be reached: %v", urlErr.Err), true
		e.Hint = "see whether it answers: curl -i https://api.cloudflare.com/client/v4/ips"
	default:
		e.Problem = fmt.Sprintf("Cloudflare, %s in zone %s: %v", name, zone, err)
		e.whole = false
	}
	return e
}

// lookupToken returns the key of the token that looks up the zone.
func (c *cloudflareClient) lookupToken() string {
	if c.options.ZoneToken.IsSet() {
		return "zone_token"
	}
	return "api_token"
}
