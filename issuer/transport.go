package issuer

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	requestTimeout = 30 * time.Second // one request, reply included; the library has none of its own
	maxReply       = 4 << 20          // bytes; a chain is a few KiB
)

// newTransport returns an HTTP transport that trusts roots, or the system's where there are none.
func newTransport(roots []*x509.Certificate, connections int) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone() // keeps the proxy environment and the dial timeouts
	t.MaxIdleConnsPerHost = connections
	t.ResponseHeaderTimeout = requestTimeout
	if len(roots) > 0 {
		pool := x509.NewCertPool()
		for _, root := range roots {
			pool.AddCert(root)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return t
}

// observer sees each request and reply: it notes the Retry-After that the ACME library keeps to itself, bounds replies,
// and takes renewalInfo out of the directory that the library sees, since the library would ask for renewal
// information while a certificate is being fetched and wait seconds for it.
type observer struct {
	base      http.RoundTripper
	directory string
	agent     string
}

// reply is what the observer notes of the last reply under one context.
type reply struct {
	url        string // that was asked
	status     int
	retryAfter time.Time
	lost       bool // there was none
}

type (
	replyKey      struct{}
	unfilteredKey struct{}
)

// observe returns a context under which the observer notes the last reply into r. One context serves one request at a
// time.
func observe(ctx context.Context) (_ context.Context, r *reply) {
	r = new(reply)
	return context.WithValue(ctx, replyKey{}, r), r
}

func unfiltered(ctx context.Context) context.Context {
	return context.WithValue(ctx, unfilteredKey{}, true)
}

// RoundTrip implements http.RoundTripper.
func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.base.RoundTrip(req)
	r, noting := req.Context().Value(replyKey{}).(*reply)
	if err != nil {
		if noting {
			*r = reply{url: req.URL.String(), lost: true}
		}
		return nil, err
	}
	if noting {
		*r = reply{url: req.URL.String(), status: resp.StatusCode, retryAfter: retryAfter(resp.Header, time.Now())}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxReply), resp.Body}
	if req.Context().Value(unfilteredKey{}) == nil && req.Method == http.MethodGet && req.URL.String() == o.directory {
		return withoutRenewalInfo(resp)
	}
	return resp, nil
}

func withoutRenewalInfo(resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) == nil { // anything else is for the library to complain about
		delete(fields, "renewalInfo")
		if body, err = json.Marshal(fields); err != nil {
			return nil, err
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	return resp, nil
}

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3), in seconds or as a date; zero when there is none.
func retryAfter(h http.Header, now time.Time) time.Time {
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return now.Add(time.Duration(min(seconds, 1<<31)) * time.Second)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return time.Time{}
	}
	return at
}

// getJSON fetches what needs no account: the directory and renewal information.
func (i *Issuer) getJSON(ctx context.Context, url string, into any) (*reply, error) {
	ctx, noted := observe(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return noted, err
	}
	req.Header.Set("User-Agent", i.cfg.UserAgent)
	resp, err := i.http.Do(req)
	if err != nil {
		return noted, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return noted, err
	}
	if resp.StatusCode != http.StatusOK {
		return noted, fmt.Errorf("%s answers HTTP %d", url, resp.StatusCode)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return noted, fmt.Errorf("%s answers no JSON: %w", url, err)
	}
	return noted, nil
}
