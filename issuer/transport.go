package issuer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/printable"
)

// Bounds for requests and replies.
const (
	requestTimeout = 30 * time.Second // one request, reply included; the library has none of its own
	maxReply       = 128 << 10        // bytes of a body or of headers; an order of a hundred names takes 40 KiB
	maxRedirects   = 5
	mostLosses     = 2 // replies to one call that may be lost

	// An order may take so much of everything, and so much more for each of its names. Five minutes of polling are some
	// seventy requests for each.
	orderRequests, nameRequests = 200, 100
	orderTime, nameTime         = 10 * time.Minute, time.Minute // spent waiting for replies
)

// newTransport returns an HTTP transport that trusts roots, or the system's where there are none.
func newTransport(roots []*x509.Certificate, connections int) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone() // keeps the proxy environment and the dial timeouts
	t.MaxIdleConnsPerHost = connections
	t.ResponseHeaderTimeout = requestTimeout
	t.MaxResponseHeaderBytes = maxReply
	t.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: maxReply, MaxReceiveBufferPerConnection: 4 * maxReply} // 4 MiB and 1 GiB otherwise
	if len(roots) > 0 {
		pool := x509.NewCertPool()
		for _, root := range roots {
			pool.AddCert(root)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return t
}

// observer stands between the ACME library and the CA. It lets requests go to the CA's hosts alone, bounds what comes
// back, gives the library replies that it can read (see replies.go), and records facts that the library doesn't return.
type observer struct {
	base  http.RoundTripper
	hosts []string // host:port of those that the CA may lead to
}

// reply holds the facts of the last reply to a request, as the observer records them.
type reply struct {
	url        string // that was asked
	method     string // by which
	status     int
	retryAfter time.Time
	lost       bool   // there was none
	body       []byte // as it came
}

// facts belong to a request: the observer reads them, and records the reply there. The library passes on only the context of
// a call, so they are a value of the context.
type facts struct {
	library *libraryCall // nil for a request that isn't the library's
	reply   *reply       // of one request at a time; may be nil
	spent   *spent       // by the order; nil for a request that belongs to none
}

type factsKey struct{}

func factsOf(ctx context.Context) facts {
	f, _ := ctx.Value(factsKey{}).(facts)
	return f
}

// with returns a context with changed facts. Nothing else puts a value into a context.
func with(ctx context.Context, change func(f *facts)) context.Context {
	f := factsOf(ctx)
	change(&f)
	return context.WithValue(ctx, factsKey{}, f)
}

// libraryCall is one call of the library.
type libraryCall struct {
	want       shape  // of the object that is the reply; nil when the reply isn't read
	chain      bool   // the reply is a certificate chain
	empty      bool   // no object is fine too
	lasting    bool   // each request makes an object at the CA, so it is repeated at most once
	losses     int    // replies that were lost
	directory  []byte // the reply to the library's request for the directory
	alternates []string
	object     []byte                  // the checked reply
	location   string                  // of the object that was made
	stop       context.CancelCauseFunc // keeps the library from trying again
}

// end keeps the library from trying again, and returns the reason.
func (c *libraryCall) end(err error) error {
	if c != nil {
		c.stop(&endError{err})
	}
	return err
}

// endError is the reason that a call was ended for.
type endError struct{ error }

// spent counts what an order has taken of its CA. Its requests run side by side.
type spent struct {
	names    int
	requests atomic.Int64
	time     atomic.Int64 // nanoseconds of waiting for replies
}

// bounded returns a context that bounds all requests together, for one order of some names. One that is bounded already stays
// as it is.
func bounded(ctx context.Context, names int) context.Context {
	if factsOf(ctx).spent != nil {
		return ctx
	}
	return with(ctx, func(f *facts) { f.spent = &spent{names: names} })
}

// request counts a request, and is an error when the order has had more than it may.
func (s *spent) request() error {
	if most := orderRequests + s.names*nameRequests; s.requests.Add(1) > int64(most) {
		return fmt.Errorf("the CA has been sent %d requests for one order, and no certificate came of it", most)
	}
	if most := orderTime + time.Duration(s.names)*nameTime; time.Duration(s.time.Load()) > most {
		return fmt.Errorf("replies for one order have taken %s, and no certificate came of it", most)
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	f := factsOf(req.Context())
	c := f.library
	if c != nil && req.Method == http.MethodGet { // the only thing that the library gets so
		return made(req, c.directory), nil
	}
	if err := allowed(req.URL, o.hosts); err != nil {
		return nil, c.end(err)
	}
	if f.spent != nil {
		if err := f.spent.request(); err != nil {
			return nil, c.end(err)
		}
		begin := time.Now()
		defer func() { f.spent.time.Add(int64(time.Since(begin))) }()
	}
	r := cmp.Or(f.reply, &reply{})
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		*r = reply{url: req.URL.String(), method: req.Method, lost: true}
		return nil, c.lost(req, err)
	}
	body, whole, err := readReply(resp)
	*r = reply{
		url:        req.URL.String(),
		method:     req.Method,
		status:     resp.StatusCode,
		retryAfter: retryAfter(resp.Header, time.Now()),
		lost:       err != nil,
		body:       body,
	}
	if err != nil {
		return nil, c.lost(req, err)
	}
	if err := c.read(req, resp, r, body, whole); err != nil {
		return nil, c.end(err)
	}
	return resp, nil
}

// made makes a reply without a request to the CA.
func made(req *http.Request, body []byte) *http.Response {
	return &http.Response{
		Status:        "200 OK",
		StatusCode:    http.StatusOK,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Request:       req,
		Header:        http.Header{"Content-Type": {jsonType}},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}

// readReply reads a body. It reports whether that was all of it.
func readReply(resp *http.Response) (body []byte, whole bool, err error) {
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if len(body) > maxReply {
		_ = resp.Body.Close() // ends the connection, and with it the rest
		return body[:maxReply], false, nil
	}
	return body, true, errors.Join(err, resp.Body.Close())
}

// lost handles a request without a reply. The library repeats it at once, which helps after a broken connection, but not after
// half a minute of silence.
func (c *libraryCall) lost(req *http.Request, err error) error {
	var dial *net.OpError
	dialled := errors.As(err, &dial) && dial.Op == "dial"
	var slow net.Error
	silent := errors.As(err, &slow) && slow.Timeout() || errors.Is(err, context.DeadlineExceeded)
	if end, ok := req.Context().Deadline(); ok && !time.Now().Before(end) { // while a body is read, the error has another text
		silent = true
	}
	if silent && !dialled {
		err = fmt.Errorf("no answer within %s from %s", requestTimeout, printable.Short(req.URL.Redacted(), maxURL))
	}
	if !silent && !dialled {
		err = fmt.Errorf("no reply that can be read comes from %s: %w", where(req.URL.Redacted()), err)
	}
	if c == nil {
		return err
	}
	if req.Method == http.MethodPost && !dialled {
		c.losses++ // the next request has a used nonce, and the library begins again after badNonce
	}
	if silent || c.lasting && c.losses > 1 || c.losses > mostLosses {
		return c.end(err)
	}
	return err
}

const (
	jsonType    = "application/json"
	problemType = "application/problem+json"
	chainType   = "application/pem-certificate-chain"
)

// read puts a reply into a form that the library reads, or ends the call. A nil call wants its reply as it is.
func (c *libraryCall) read(req *http.Request, resp *http.Response, r *reply, body []byte, whole bool) (err error) {
	defer func() {
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		resp.Header.Del("Content-Length")
	}()
	location := resp.Header.Get("Location")
	if len(resp.Header.Get("Replay-Nonce")) > longestToken { // the library keeps some, and sends them back
		resp.Header.Del("Replay-Nonce")
	}
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
		body, err = c.readError(resp, r, body)
		return err
	case resp.StatusCode >= http.StatusMultipleChoices && location != "" && req.Method == http.MethodPost:
		return fmt.Errorf("%s redirects a signed request, to %s, which no ACME server does", where(req.URL.String()), where(location))
	case resp.StatusCode >= http.StatusMultipleChoices && c != nil && location == "":
		return statusError(req.URL, resp.StatusCode)
	case !whole:
		return fmt.Errorf("%s sends more than %d KiB, which no ACME server does", where(req.URL.String()), maxReply>>10)
	case c == nil || req.Method != http.MethodPost:
		return nil
	}
	if location != "" {
		if u, err := req.URL.Parse(location); err == nil { // it may be relative (RFC 9110 section 10.2.2)
			resp.Header.Set("Location", u.String())
			c.location = u.String()
		}
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == problemType {
		if p, _, ok := readProblem(resp.StatusCode, body); ok {
			return p // an error in spite of the status
		}
	}
	switch {
	case c.chain:
		if !bytes.Contains(body, []byte("-----BEGIN CERTIFICATE-----")) {
			return fmt.Errorf("%s sends no certificate, but %s: %s", where(req.URL.String()), printable.Short(resp.Header.Get("Content-Type"), 100), start(body))
		}
		c.alternates = links(req.URL, resp.Header.Values("Link"), "alternate")
		resp.Header.Del("Link") // the library would follow each, and rel="up" without bound
		resp.Header.Set("Content-Type", chainType)
	case c.want != nil:
		if c.empty && len(bytes.TrimSpace(body)) == 0 {
			body = []byte("{}")
		}
		if body, err = readObject(body, c.want); err != nil {
			return fmt.Errorf("the reply of %s can't be read: %w", where(req.URL.String()), err)
		}
		resp.Header.Set("Content-Type", jsonType)
		c.object = body
	}
	return nil
}

// readError gives the library an error that it can read. A server that says when to ask again isn't asked before that.
func (c *libraryCall) readError(resp *http.Response, r *reply, body []byte) ([]byte, error) {
	p, said, ok := readProblem(resp.StatusCode, body)
	clean := []byte(said)
	resp.Header.Set("Content-Type", "text/plain")
	if r.method == http.MethodHead { // it has no body
		return clean, nil
	}
	if !ok && c == nil {
		return clean, nil
	}
	if !ok { // the library's error for anything but a problem document says little
		p = acme.Problem{Status: resp.StatusCode, Detail: fmt.Sprintf("HTTP %d: %s", resp.StatusCode, cmp.Or(said, http.StatusText(resp.StatusCode)))}
	}
	resp.Header.Set("Content-Type", problemType)
	clean, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if c == nil || resp.StatusCode < http.StatusInternalServerError || r.retryAfter.IsZero() && !c.lasting {
		return clean, nil
	}
	return clean, p
}

// statusError is the error for a reply with nothing but a status.
func statusError(u *url.URL, status int) error {
	return fmt.Errorf("%s answers HTTP %d (%s)", where(u.Redacted()), status, http.StatusText(status))
}

// links finds the targets of a relation (RFC 8288) in Link headers.
func links(base *url.URL, headers []string, relation string) (targets []string) {
	for _, header := range headers {
		for _, link := range strings.Split(header, ",") {
			target, parameters, ok := strings.Cut(strings.TrimSpace(link), ">")
			if !ok || !strings.HasPrefix(target, "<") || !slices.ContainsFunc(strings.Split(parameters, ";"), func(p string) bool {
				name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
				return strings.EqualFold(name, "rel") && strings.EqualFold(strings.Trim(value, `"`), relation)
			}) {
				continue
			}
			if u, err := base.Parse(target[1:]); err == nil {
				targets = append(targets, u.String())
			}
		}
	}
	return targets
}

// strayError is the error for a URL of the CA that leads to a host that isn't allowed.
type strayError struct {
	URL  string // printable
	Host string // to be added to hosts; "" when that doesn't help
	User bool   // it holds credentials
}

func (e *strayError) Error() string {
	switch {
	case e.URL == "":
		return "the CA leaves out a URL that it must name"
	case e.User:
		return fmt.Sprintf("the CA leads to %s, which holds a user name or a password", e.URL)
	case e.Host == "":
		return fmt.Sprintf("the CA leads to %s, which isn't an https URL", e.URL)
	}
	return fmt.Sprintf("the CA leads to %s, which isn't on the host of its directory", e.URL)
}

// hint returns the line that allows the host.
func (e *strayError) hint(cfg Config) string {
	if e.Host == "" {
		return ""
	}
	var hosts []string
	for _, h := range append(slices.Clone(cfg.Hosts), e.Host) {
		hosts = append(hosts, strconv.Quote(h))
	}
	return "if the CA is right, write " + cfg.setting("hosts = ["+strings.Join(hosts, ", ")+"]", "--ca-host "+e.Host)
}

// allowed reports whether the CA may lead to a URL: by https alone, and to its own hosts.
func allowed(u *url.URL, hosts []string) error {
	if u.Scheme != "https" || u.Host == "" || u.User != nil {
		return &strayError{URL: where(u.Redacted()), User: u.User != nil && u.Scheme == "https"}
	}
	if !slices.Contains(hosts, hostPort(u.Host)) {
		return &strayError{URL: where(u.Redacted()), Host: printable.Short(u.Host, 300)}
	}
	return nil
}

// hostPort writes a host as host:port, in lower case.
func hostPort(host string) string {
	u := url.URL{Host: strings.ToLower(host)}
	return net.JoinHostPort(strings.TrimSuffix(u.Hostname(), "."), cmp.Or(u.Port(), "443"))
}

// hostsOf lists where a CA may lead to.
func hostsOf(cfg Config) []string {
	var hosts []string
	if u, err := url.Parse(cfg.Directory); err == nil {
		hosts = append(hosts, hostPort(u.Host))
	}
	for _, host := range cfg.Hosts {
		hosts = append(hosts, hostPort(host))
	}
	return hosts
}

// where shows a URL of the CA.
func where(url string) string { return printable.Short(url, 200) }

// checkRedirect follows redirects of unsigned requests; RoundTrip checks where they lead.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("the CA redirects more than %d times", maxRedirects)
	}
	if via[0].Method == http.MethodPost { // RoundTrip has refused it
		return http.ErrUseLastResponse
	}
	return nil
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
