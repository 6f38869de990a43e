package issuer

import (
	"cmp"
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

// Error says at which step which CA failed, and what helps.
type Error struct {
	CA         string
	Step       string // account, directory, order, authorization, challenge, finalize, certificate, renewal information
	Hostname   string // which it is about, when it is about one
	Err        error
	Hint       string    // the cure, where it is known
	RetryAfter time.Time // when the CA wants to be asked again; zero when it didn't say
	Silent     bool      // the CA didn't answer, or said that it can't (HTTP 5xx)

	limit bool // the CA limits what is no order yet, so that it concerns all
}

// Error returns which CA failed at what, and why.
func (e *Error) Error() string {
	text := fmt.Sprintf("CA %s: %s: ", e.CA, e.Step)
	if e.Hostname != "" {
		text += e.Hostname + ": "
	}
	return text + shown(e.Err.Error()) // which may quote what the CA sent in several places
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

// WorkingError says that the CA hasn't decided about an order yet. It is no failure: the order stays open, and the same
// one is asked about again.
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
	if errors.As(explained, &e) && noted.status >= http.StatusBadRequest {
		e.RetryAfter = noted.retryAfter
	}
	if e != nil && noted.status >= http.StatusBadRequest && noted.method == http.MethodHead { // which can say nothing else
		e.Err = fmt.Errorf("%s answers HTTP %d (%s)", noted.url, noted.status, http.StatusText(noted.status))
	}
	if e != nil && noted.url == i.cfg.Directory && !noted.lost && e.Hint == "" {
		switch status := noted.status; {
		case status == http.StatusNotFound:
			e.Err = errors.New("the server answers HTTP 404, and not as an ACME server does")
			fallthrough
		case status < http.StatusInternalServerError && status != http.StatusTooManyRequests:
			e.Hint = fmt.Sprintf("check %s: is %s the CA's ACME directory?", i.cfg.setting("directory", "--directory"), i.cfg.Directory)
		}
	}
	if e != nil {
		e.limit = noted.status == http.StatusTooManyRequests && (noted.method == http.MethodHead || noted.url == i.cfg.Directory)
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
		e.Err, e.Hint = stray, stray.hint(i.cfg)
	case errors.As(err, &worded):
		e.Hint = problemHint(worded.Problem, step, i.cfg)
	case errors.As(err, &problem):
		e.Err, e.Hint = &problemError{problem}, problemHint(problem, step, i.cfg)
	case errors.As(err, &authority):
		e.Hint, e.Err = i.untrusted(authority.Cert)
	case errors.As(err, &wrongName):
		e.Err = fmt.Errorf("the server shows a certificate for %s, not for %s", namesOf(wrongName.Certificate), printable.Line(wrongName.Host))
		e.Hint = fmt.Sprintf("write %s with a name that the certificate has, or have the CA's server certificate issued for %s too",
			i.cfg.setting("directory", "--directory"), printable.Line(wrongName.Host))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Err = fmt.Errorf("the certificate that the server shows is valid from %s to %s, and this machine's clock says %s", invalid.Cert.NotBefore.UTC().Format(time.RFC3339),
			invalid.Cert.NotAfter.UTC().Format(time.RFC3339), time.Now().UTC().Format(time.RFC3339))
		e.Hint = "check this machine's clock: timedatectl; if it is right, the CA's server needs another certificate"
	case errors.As(err, &invalid):
		e.Err = fmt.Errorf("the certificate that the server shows isn't taken: %s", printable.Line(invalid.Error()))
		e.Hint = "the CA's server needs another certificate"
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		e.Err = fmt.Errorf("what answers at %s doesn't speak TLS", i.cfg.Directory)
		e.Hint = "check the port in " + i.cfg.setting("directory", "--directory")
	case errors.As(err, &dnsError):
		e.Err = fmt.Errorf("the name %s doesn't resolve: %w", dnsError.Name, err)
		e.Hint = fmt.Sprintf("check %s and this machine's resolver", i.cfg.setting("directory", "--directory"))
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

// problemError is a problem document (RFC 8555 section 6.7) in one line.
type problemError struct{ acme.Problem }

func (e *problemError) Unwrap() error { return e.Problem }

func (e *problemError) Error() string {
	kind := strings.TrimPrefix(e.Type, acme.ProblemTypeNamespace)
	if kind == "about:blank" { // says nothing (RFC 9457 section 4.2.1)
		kind = ""
	}
	text := cmp.Or(e.Detail, e.Title)
	switch {
	case text == "" && kind == "":
		text = fmt.Sprintf("HTTP %d", e.Status)
	case text == "":
		text = fmt.Sprintf("%s (HTTP %d)", kind, e.Status)
	case kind != "":
		text += " (" + kind + ")"
	}
	var same []string // names of which the CA says no more than it has said of the whole
	for _, sub := range e.Subproblems {
		switch name := sub.Identifier.Value; {
		case !strings.Contains(e.Detail, sub.Detail):
			text += "; " + strings.TrimPrefix(name+": "+sub.Detail, ": ")
		case !strings.Contains(e.Detail, name) && !slices.Contains(same, name):
			same = append(same, name)
		}
	}
	if len(same) > 0 {
		text += ", for " + strings.Join(same, ", ")
	}
	return shown(text)
}

// setting says in a cure where something about the CA is set: in its table, or by a flag.
func (c Config) setting(inTable, flag string) string {
	if c.ByFlags {
		return flag
	}
	return fmt.Sprintf("%s below [ca.%s]", inTable, c.Name)
}

// methods lists the types of challenges that are answered.
func (c Config) methods(separator string) string {
	var list []string
	for _, t := range c.Challenges {
		list = append(list, string(t))
	}
	return strings.Join(list, separator)
}

// argument names the CA in a command.
func (c Config) argument() string {
	if c.ByFlags {
		return "--directory " + c.Directory
	}
	return c.Name
}

// Argument names the CA in a command that a message proposes: by its name, or by the flag where flags name it.
func (i *Issuer) Argument() string { return i.cfg.argument() }

// untrusted says which authority isn't trusted, and how to trust it. Who named roots already has named others than the
// CA's.
func (i *Issuer) untrusted(cert *x509.Certificate) (hint string, err error) {
	by := "an authority"
	if cert != nil {
		by = fmt.Sprintf("%q", printable.Line(cert.Issuer.String()))
	}
	if len(i.cfg.Roots) == 0 {
		return "name the CA's root: " + i.cfg.setting(`roots = ["/path/to/root.pem"]`, "--roots /path/to/root.pem"),
			fmt.Errorf("%s shows a certificate by an authority that this machine doesn't trust: %s", i.cfg.Directory, by)
	}
	var roots []string
	for _, root := range i.cfg.Roots {
		roots = append(roots, fmt.Sprintf("%q", printable.Line(root.Subject.String())))
	}
	return fmt.Sprintf("the files of %s are those of another CA; put the root there that signs the certificates of this server", i.cfg.setting("roots", "--roots")),
		fmt.Errorf("%s shows a certificate by %s, which none of the configured roots has signed: %s", i.cfg.Directory, by, strings.Join(roots, ", "))
}

// namesOf lists what a certificate is for.
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

// dialled names what couldn't be reached: the host that was asked for, and the address that was tried where it is another.
// Behind a proxy the address is the proxy's.
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
// key. sure says that it can have meant nothing else.
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
