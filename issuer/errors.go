package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Error says at which step which CA failed, and what helps.
type Error struct {
	CA         string
	Step       string // account, directory, order, authorization, challenge, finalize, certificate, renewal information
	Hostname   string // which it is about, when it is about one
	Err        error
	Hint       string    // the cure, where it is known
	RetryAfter time.Time // when the CA wants to be asked again; zero when it didn't say
	Silent     bool      // the CA didn't answer, or said that it can't (HTTP 5xx)
}

func (e *Error) Error() string {
	text := fmt.Sprintf("CA %s: %s: ", e.CA, e.Step)
	if e.Hostname != "" {
		text += e.Hostname + ": "
	}
	text += shown(e.Err.Error()) // which may quote what the CA sent in several places
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// RetryAfter returns when the CA wants to be asked again, zero when no error in the chain says so.
func RetryAfter(err error) time.Time {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return time.Time{}
}

// failed turns what a request returned into an Error, with the Retry-After of its reply.
func (i *Issuer) failed(step string, noted *reply, err error) error {
	explained := i.explain(step, err)
	var e *Error
	if errors.As(explained, &e) && (noted.status == http.StatusTooManyRequests || noted.status == http.StatusServiceUnavailable) {
		e.RetryAfter = noted.retryAfter
	}
	if e != nil && noted.status == http.StatusNotFound && noted.url == i.cfg.Directory {
		e.Err = errors.New("the server answers HTTP 404, and not as an ACME server does")
		e.Hint = fmt.Sprintf("check directory below [ca.%s]: is %s the CA's ACME directory?", i.cfg.Name, i.cfg.Directory)
	}
	if e != nil {
		e.Silent = noted.lost || noted.status >= http.StatusInternalServerError
	}
	return explained
}

// about says which hostname a failure is about.
func about(hostname string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Hostname == "" {
		e.Hostname = hostname
	}
	return err
}

// explain turns a failure into an Error in words that a person can act on. A cancelled context stays what it is.
func (i *Issuer) explain(step string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	e := &Error{CA: i.cfg.Name, Step: step, Err: err}
	var (
		worded    *problemError
		problem   acme.Problem
		authority x509.UnknownAuthorityError
		dnsError  *net.DNSError
		opError   *net.OpError
		urlError  *url.Error
		stray     *strayError
	)
	switch {
	case errors.As(err, &stray):
		e.Err, e.Hint = stray, stray.hint(i.cfg)
	case errors.As(err, &worded):
		e.Hint = problemHint(worded.Problem, i.cfg)
	case errors.As(err, &problem):
		e.Err, e.Hint = &problemError{problem}, problemHint(problem, i.cfg)
	case errors.As(err, &authority):
		e.Err = fmt.Errorf("%s shows a certificate by an authority that this machine doesn't trust", i.cfg.Directory)
		e.Hint = fmt.Sprintf(`name the CA's root: roots = ["/path/to/root.pem"] below [ca.%s]`, i.cfg.Name)
	case errors.As(err, &dnsError):
		e.Err = fmt.Errorf("the name %s doesn't resolve: %w", dnsError.Name, err)
		e.Hint = fmt.Sprintf("check directory below [ca.%s] and this machine's resolver", i.cfg.Name)
	case errors.As(err, &opError) && opError.Op == "dial":
		e.Err = fmt.Errorf("%s can't be reached: %w", opError.Addr, opError.Err)
		e.Hint = "check that the CA runs, and the way to it: firewall, HTTPS_PROXY"
	case errors.As(err, &urlError) && urlError.Timeout():
		e.Err = fmt.Errorf("no answer within %s from %s", requestTimeout, urlError.URL)
	}
	return e
}

// problemError is a problem document (RFC 8555 section 6.7) in one line.
type problemError struct{ acme.Problem }

func (e *problemError) Unwrap() error { return e.Problem }

func (e *problemError) Error() string {
	kind := strings.TrimPrefix(e.Type, acme.ProblemTypeNamespace)
	text := fmt.Sprintf("%s (%s)", e.Detail, kind)
	if e.Detail == "" {
		text = fmt.Sprintf("%s (HTTP %d)", kind, e.Status)
	}
	for _, sub := range e.Subproblems {
		text += fmt.Sprintf("; %s: %s", sub.Identifier.Value, sub.Detail)
	}
	return shown(text)
}

func problemHint(p acme.Problem, cfg Config) string {
	switch p.Type {
	case acme.ProblemTypeExternalAccountRequired:
		return fmt.Sprintf(`this CA wants an external account binding: eab = { kid = "…", hmac_key = { file = "…" } } below [ca.%s]`, cfg.Name)
	case acme.ProblemTypeCAA:
		return "a CAA record forbids this CA to issue for the name; see: dig CAA for the name and each zone above it"
	case acme.ProblemTypeUserActionRequired:
		return "the CA wants a person to act: read the page that it names"
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		return fmt.Sprintf("check email below [ca.%s]", cfg.Name)
	}
	return ""
}

// isProblem reports whether err is a problem document of one of the types.
func isProblem(err error, types ...string) bool {
	var p acme.Problem
	if !errors.As(err, &p) {
		return false
	}
	for _, t := range types {
		if p.Type == t {
			return true
		}
	}
	return false
}
