package providers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libdns/cloudflare"

	"autocertd/internal/printable"
)

const (
	cloudflareTries   = 3                // requests in all, while the API says "later"
	cloudflareMaxWait = 10 * time.Second // between two; if the API asks for more, the caller must come back
	cloudflareMaxBody = 1 << 20
)

// Codes of the API that mean something of their own.
const (
	codeBadHeader = 6003  // with status 400: what stands in the Authorization header isn't a token
	codeNoRecord  = 81044 // to be deleted: there is no such record
	codeIdentical = 81058 // to be added: there is an identical record
)

var (
	errNoZone   = errors.New("the zone wasn't found")
	errBadReply = errors.New("not an answer of the API")
	errHidden   = errors.New("the record wasn't found")
)

// cloudflareCall is the library's HTTP client during one call of ours. It tries again when the API says "later", and
// turns every refusal into an error. It isn't safe for concurrent use.
type cloudflareCall struct {
	http cloudflare.HTTPClient
	err  error // of the last request, since the library drops the error of a lookup before a removal

	found bool // a search has shown a record, which is to be removed now
}

// Do sends the request and returns an answer only if it is a success.
func (c *cloudflareCall) Do(req *http.Request) (*http.Response, error) {
	c.found = req.Method == http.MethodDelete
	for try := 1; ; try++ {
		var resp *http.Response
		resp, c.err = c.once(req)
		refusal, refused := errors.AsType[*cloudflareRefusal](c.err)
		if !refused || !refusal.temporary() || try == cloudflareTries {
			return resp, c.err
		}
		wait := refusal.retryAfter
		if wait < 0 {
			wait = time.Second<<(try-1) + rand.N(time.Second)
		}
		if wait > cloudflareMaxWait {
			return nil, c.err
		}
		select {
		case <-req.Context().Done():
			c.err = req.Context().Err()
			return nil, c.err
		case <-time.After(wait):
		}
	}
}

func (c *cloudflareCall) once(req *http.Request) (*http.Response, error) {
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req.Body = body
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, cloudflareMaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadReply, err)
	}
	if err := checkReply(req, resp, body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// checkReply returns nil if the answer is a success that the library reads without dropping anything.
func checkReply(req *http.Request, resp *http.Response, body []byte) error {
	var reply struct {
		Success bool                `json:"success"`
		Errors  []cloudflareMessage `json:"errors"`
		Result  json.RawMessage     `json:"result"`
	}
	lookup := strings.HasSuffix(req.URL.Path, "/zones")
	err := json.Unmarshal(body, &reply)
	if resp.StatusCode >= 300 || err == nil && (!reply.Success || len(reply.Errors) > 0) {
		return &cloudflareRefusal{status: resp.StatusCode, messages: reply.Errors, lookup: lookup, retryAfter: retryAfter(resp)}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errBadReply, err)
	}
	if req.Method != http.MethodGet {
		return nil
	}
	// The library takes anything but a list for an empty list.
	var list []json.RawMessage
	if err := json.Unmarshal(reply.Result, &list); err != nil || list == nil {
		return fmt.Errorf("%w: the result of a search isn't a list", errBadReply)
	}
	if lookup && len(list) == 0 {
		return errNoZone
	}
	return nil
}

// retryAfter returns how long the server asks to wait (RFC 9110, 10.2.3), -1 if it doesn't say.
func retryAfter(resp *http.Response) time.Duration {
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(t))
	}
	return -1
}

// cloudflareRefusal is an answer of the API that isn't a success.
type cloudflareRefusal struct {
	status     int
	messages   []cloudflareMessage
	lookup     bool // of the search for the zone
	retryAfter time.Duration
}

// cloudflareMessage is one reason for a refusal.
type cloudflareMessage struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error returns the status and the first reasons. What the API sends is cut and made printable.
func (r *cloudflareRefusal) Error() string {
	text := fmt.Sprintf("HTTP %d", r.status)
	for _, m := range r.messages[:min(3, len(r.messages))] {
		text += fmt.Sprintf(", code %d: %s", m.Code, printable.Short(m.Message, maxReason))
	}
	return text
}

// temporary reports whether the same request may succeed later.
func (r *cloudflareRefusal) temporary() bool {
	return r.status == http.StatusTooManyRequests || r.status >= 500
}

// ofToken reports whether the API refused the token rather than what was asked.
func (r *cloudflareRefusal) ofToken() bool {
	if r.status == http.StatusUnauthorized || r.status == http.StatusForbidden {
		return true
	}
	return r.has(codeBadHeader)
}

func (r *cloudflareRefusal) has(code int) bool {
	return slices.ContainsFunc(r.messages, func(m cloudflareMessage) bool { return m.Code == code })
}

// refusedWith reports whether err is a refusal with the given code.
func refusedWith(err error, code int) bool {
	refusal, ok := errors.AsType[*cloudflareRefusal](err)
	return ok && refusal.has(code)
}
