package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"autocertd/internal/cure"
	"autocertd/internal/printable"
)

// Error is a failure of a CA at a step, with its cure.
type Error struct {
	CA         string
	Step       string // account, directory, order, authorization, challenge, finalize, certificate, renewal information
	Hostname   string // "" when the failure isn't about a single one
	Err        error
	Hint       string    // the cure, where it is known
	RetryAfter time.Time // when the CA wants to be asked again; zero when it didn't say
	Silent     bool      // the CA didn't answer, or said that it can't (HTTP 5xx)

	limit bool // the CA refused a request that comes before an order, so all orders are affected
}

// Error returns the CA, the step, the hostname and the cause.
func (e *Error) Error() string {
	text := fmt.Sprintf("CA %s: %s: ", e.CA, e.Step)
	if e.Hostname != "" {
		text += e.Hostname + ": "
	}
	return text + shown(e.Err.Error()) // it may quote the CA several times
}

// Cure returns the hint, else what the cause knows.
func (e *Error) Cure() string {
	if e.Hint == "" {
		return cure.Of(e.Err)
	}
	return e.Hint
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WorkingError says that the CA hasn't decided about an order yet. It is no failure: the order stays open, and the next attempt
// resumes it.
type WorkingError struct {
	CA       string
	Hostname string    // whose validation runs; "" when it is the certificate that is made
	Order    string    // URL
	Again    time.Time // when the CA wants to be asked; zero when it didn't say
}

func (e *WorkingError) Error() string {
	if e.Hostname != "" {
		return fmt.Sprintf("CA %s: %s: the CA is still validating; the same order is asked again", e.CA, e.Hostname)
	}
	return fmt.Sprintf("CA %s: the CA is still working on it; the same order is asked again", e.CA)
}

// RetryAfter returns when the CA wants to be asked again, zero when no error in the chain says so.
func RetryAfter(err error) time.Time {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return time.Time{}
}

// failed turns the error of a request into an Error, with the facts of its reply. An Error is returned unchanged.
func (c Config) failed(step string, r reply, err error) error {
	if _, already := errors.AsType[*Error](err); already {
		return err
	}
	err = c.explain(step, err)
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	refused := r.status >= http.StatusBadRequest
	if refused {
		e.RetryAfter = r.retryAfter
	}
	if refused && r.method == http.MethodHead { // which can say nothing else
		e.Err = fmt.Errorf("%s answers HTTP %d (%s)", r.url, r.status, http.StatusText(r.status))
	}
	if r.url == c.Directory && !r.lost && e.Hint == "" {
		switch {
		case r.status == http.StatusNotFound:
			e.Err = errors.New("the server answers HTTP 404, and not as an ACME server does")
			fallthrough
		case r.status < http.StatusInternalServerError && r.status != http.StatusTooManyRequests:
			e.Hint = fmt.Sprintf("check %s: is %s the CA's ACME directory?", c.setting("directory", "--directory"), c.Directory)
		}
	}
	e.limit = r.status == http.StatusTooManyRequests && (r.method == http.MethodHead || r.url == c.Directory)
	e.Silent = r.lost || r.status >= http.StatusInternalServerError
	return err
}

// about sets the hostname of a failure.
func about(hostname string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Hostname == "" {
		e.Hostname = hostname
	}
	return err
}

// explain turns a failure into an Error with a text that a person can act on. A cancellation is returned unchanged.
func (c Config) explain(step string, err error) error {
	if _, already := errors.AsType[*Error](err); already || err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{CA: c.Name, Step: step, Err: err}
	var (
		worded    *problemError
		problem   acme.Problem
		authority x509.UnknownAuthorityError
		wrongName x509.HostnameError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
		dnsError  *net.DNSError
		opError   *net.OpError
		urlError  *url.Error
		stray     *strayError
	)
	switch {
	case errors.As(err, &stray):
		e.Err, e.Hint = stray, stray.hint(c)
	case errors.As(err, &worded):
		e.Hint = problemHint(worded.Problem, step, c)
	case errors.As(err, &problem):
		e.Err, e.Hint = &problemError{problem}, problemHint(problem, step, c)
	case errors.As(err, &authority):
		e.Hint, e.Err = c.untrusted(authority.Cert)
	case errors.As(err, &wrongName):
		e.Err = fmt.Errorf("the server shows a certificate for %s, not for %s", namesOf(wrongName.Certificate), printable.Line(wrongName.Host))
		e.Hint = fmt.Sprintf("write %s with a name that the certificate has, or have the CA's server certificate issued for %s too",
			c.setting("directory", "--directory"), printable.Line(wrongName.Host))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Err = fmt.Errorf("the certificate that the server shows is valid from %s to %s, and this machine's clock says %s", invalid.Cert.NotBefore.UTC().Format(time.RFC3339),
			invalid.Cert.NotAfter.UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
		e.Hint = "check this machine's clock: timedatectl; if it is right, the CA's server needs another certificate"
	case errors.As(err, &invalid):
		e.Err = fmt.Errorf("the certificate that the server shows isn't taken: %s", printable.Line(invalid.Error()))
		e.Hint = "the CA's server needs another certificate"
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		e.Err = fmt.Errorf("what answers at %s doesn't speak TLS", c.Directory)
		e.Hint = "check the port in " + c.setting("directory", "--directory")
	case errors.As(err, &dnsError):
		e.Err = fmt.Errorf("the name %s doesn't resolve: %w", dnsError.Name, err)
		e.Hint = fmt.Sprintf("check %s and this machine's resolver", c.setting("directory", "--directory"))
	case errors.As(err, &opError) && opError.Op == "dial":
		e.Err = fmt.Errorf("%s can't be reached: %w", dialled(err, opError), opError.Err)
		e.Hint = "check that the CA runs, and the way to it: firewall, HTTPS_PROXY"
	case errors.As(err, &urlError) && urlError.Timeout():
		e.Err = fmt.Errorf("no answer within %s from %s", requestTimeout, urlError.URL)
	case errors.As(err, &urlError):
		e.Err = urlError.Err // which names the URL where that helps
	}
	return e
}

// untrusted names the authority that isn't trusted, and the cure. If roots are configured, they are another CA's.
func (c Config) untrusted(cert *x509.Certificate) (hint string, err error) {
	by := "an authority"
	if cert != nil {
		by = fmt.Sprintf("%q", printable.Line(cert.Issuer.String()))
	}
	if len(c.Roots) == 0 {
		return "name the CA's root: " + c.setting(`roots = ["/path/to/root.pem"]`, "--roots /path/to/root.pem"),
			fmt.Errorf("%s shows a certificate by an authority that this machine doesn't trust: %s", c.Directory, by)
	}
	var roots []string
	for _, root := range c.Roots {
		roots = append(roots, fmt.Sprintf("%q", printable.Line(root.Subject.String())))
	}
	return fmt.Sprintf("the files of %s are those of another CA; put the root there that signs the certificates of this server", c.setting("roots", "--roots")),
		fmt.Errorf("%s shows a certificate by %s, which none of the configured roots has signed: %s", c.Directory, by, strings.Join(roots, ", "))
}

// namesOf lists the names in a certificate.
func namesOf(cert *x509.Certificate) string {
	names := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	return printable.Line(strings.Join(names, ", "))
}

// dialled names the host that couldn't be reached, and the address that was tried where that differs: behind a proxy it is the
// proxy's.
func dialled(err error, op *net.OpError) string {
	address := "the server"
	if op.Addr != nil {
		address = op.Addr.String()
	}
	urlError, ok := errors.AsType[*url.Error](err)
	if !ok {
		return address
	}
	u, parseErr := url.Parse(urlError.URL)
	if parseErr != nil || u.Host == "" || u.Host == address {
		return address
	}
	return fmt.Sprintf("%s (%s)", u.Host, address)
}

func problemHint(p acme.Problem, step string, cfg Config) string {
	noContact := step == "account" && cfg.Email == ""
	switch p.Type {
	case acme.ProblemTypeMalformed:
		if noContact {
			return "if the CA wants a contact: " + cfg.setting(`email = "you@example.org"`, "--email you@example.org")
		}
	case acme.ProblemTypeUnauthorized, acme.ProblemTypeAccountDoesNotExist:
		if (step == "order" || step == "finalize") && namesAccount(p) {
			return "see what the CA says of the account: autocertd account show " + cfg.argument()
		}
	case acme.ProblemTypeExternalAccountRequired:
		return fmt.Sprintf(`this CA wants an external account binding: eab = { kid = "…", hmac_key = { file = "…" } } below [ca.%s]`, cfg.Name)
	case acme.ProblemTypeCAA:
		return "a CAA record forbids this CA to issue for the name; see: dig CAA for the name and each zone above it"
	case acme.ProblemTypeUserActionRequired:
		return "the CA wants a person to act: read the page that it names"
	case acme.ProblemTypeInvalidContact, acme.ProblemTypeUnsupportedContact:
		if noContact {
			return "the CA wants a contact: " + cfg.setting(`email = "you@example.org"`, "--email you@example.org")
		}
		return "check " + cfg.setting("email", "--email")
	}
	return ""
}

// KeyRefused reports whether a CA refused the key of a certificate, or the CSR by it, as it does when it has blocked the
// key. sure says that the refusal can have no other reason.
func KeyRefused(err error) (refused, sure bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Step != "finalize" {
		return false, false
	}
	sure = isProblem(err, acme.ProblemTypeBadPublicKey)
	return sure || isProblem(err, acme.ProblemTypeBadCSR), sure
}

// isProblem reports whether err is a problem document of one of the types.
func isProblem(err error, types ...string) bool {
	p, ok := errors.AsType[acme.Problem](err)
	return ok && slices.Contains(types, p.Type)
}
