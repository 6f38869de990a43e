package preflight

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"autocertd/internal/dnschallenge"
	"autocertd/issuer"
)

// CA is one CA that certificates are wanted from.
type CA struct {
	Issuer  *issuer.Issuer
	EAB     bool   // an external account binding is configured
	Profile string // for certificates that name none
	Private bool   // its own root is configured: it isn't one that everybody trusts

	Challenges []dnschallenge.Type // that may be answered; nil for dns-01
	Account    string              // URL, as it is stored; "" when none is registered
}

// authority is what was found out about a CA that others need to know.
type authority struct {
	name       string
	identities []string // what CAA records call it
	account    string   // URL, "" when there is none yet
	private    bool     // its own root is configured
	methods    []string // the types of challenges that it may ask for, as CAA records name them
}

// checkCAs asks all CAs at once. It returns those that answer.
func (cfg Config) checkCAs(ctx context.Context) (answered []authority, list []Finding) {
	found := make([]authority, len(cfg.CAs))
	lists := make([][]Finding, len(cfg.CAs))
	var all sync.WaitGroup
	for i, ca := range cfg.CAs {
		all.Go(func() {
			found[i], lists[i] = cfg.checkCA(ctx, ca)
			forCertificates(cfg.certificatesOf(ca.Issuer.Name()), lists[i]...)
		})
	}
	all.Wait()
	return slices.DeleteFunc(found, func(a authority) bool { return a.name == "" }), slices.Concat(lists...)
}

// certificatesOf returns the names of the certificates that a CA may issue.
func (cfg Config) certificatesOf(ca string) (names []string) {
	for _, c := range cfg.Certificates {
		if slices.Contains(c.CAs, ca) {
			names = append(names, c.Name)
		}
	}
	return names
}

// checkCA asks one CA, as far as it answers. The authority of one that doesn't is empty.
func (cfg Config) checkCA(ctx context.Context, ca CA) (found authority, list []Finding) {
	name := ca.Issuer.Name()
	cfg.Progress(name, "directory")
	defer cfg.Progress(name, "")
	probe, err := ca.Issuer.Probe(ctx)
	if err != nil {
		return found, []Finding{unanswered(name, "directory", err)}
	}
	found.name, found.identities, found.private = name, probe.CAAIdentities, ca.Private
	for _, t := range ca.Challenges {
		found.methods = append(found.methods, string(t))
	}
	list = append(list, Finding{Subject: name, Check: "directory", Status: OK,
		Text: fmt.Sprintf("%s answers within %s", ca.Issuer.DirectoryURL(), round(probe.Took))})
	if probe.Terms != "" {
		list = append(list, Finding{Subject: name, Check: "terms", Status: OK, Text: "accept_terms = true agrees to " + probe.Terms})
	}
	list = append(list, judgeProfiles(name, ca.Profile, cfg.Certificates, probe.Profiles)...)
	if probe.Clock {
		list = append(list, judgeClock(name, probe.Ahead))
	}
	cfg.Progress(name, "account")
	state, err := ca.Issuer.AccountState(ctx)
	if err != nil {
		return found, append(list, unanswered(name, "account", err))
	}
	found.account = state.URL
	return found, append(list, judgeAccount(ca, probe, state))
}

// unanswered is what a failed request to a CA means.
func unanswered(name, check string, err error) Finding {
	f := Finding{
		Subject: name,
		Check:   check,
		Status:  Failure,
		Text:    err.Error(),
		Why:     "without the CA there is no certificate",
	}
	if e, ok := errors.AsType[*issuer.Error](err); ok {
		f.Text, f.Cure = e.Err.Error(), e.Hint
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		f.Cure = "if it is this machine's clock that is wrong:\n" + clockCure
	}
	return f
}

// judgeProfiles looks whether the CA has the profiles that certificates ask it for.
func judgeProfiles(ca, standard string, certs []Certificate, offered map[string]string) (list []Finding) {
	names := slices.Sorted(maps.Keys(offered))
	judge := func(subject, profile, place string) Finding {
		f := Finding{Subject: subject, Check: "profile", Status: OK, Text: fmt.Sprintf("CA %s offers %s", ca, profile)}
		if _, ok := offered[profile]; ok {
			return f
		}
		f.Status, f.Why = Failure, "the CA refuses orders for a profile that it doesn't have"
		if len(names) == 0 {
			f.Text = fmt.Sprintf("CA %s offers no profiles, so none that is called %q", ca, profile)
			f.Cure = fmt.Sprintf("remove profile = %q %s", profile, place)
			return f
		}
		f.Text = fmt.Sprintf("CA %s has no profile %q; it offers %s", ca, profile, strings.Join(names, ", "))
		f.Cure = fmt.Sprintf("%s:\nprofile = %q", place, names[0])
		return f
	}
	inherited := false
	for _, c := range certs {
		switch {
		case !slices.Contains(c.CAs, ca):
		case c.Profile != "":
			f := judge(c.Name, c.Profile, fmt.Sprintf("in the [[certificate]] %s, or in [defaults]", c.Name))
			f.Certificates = []string{c.Name}
			list = append(list, f)
		default:
			inherited = true
		}
	}
	switch {
	case !inherited:
	case standard != "":
		list = append(list, judge(ca, standard, fmt.Sprintf("in [ca.%s]", ca)))
	case len(names) > 0:
		list = append(list, Finding{Subject: ca, Check: "profile", Status: OK,
			Text: "the CA's default; it offers " + strings.Join(names, ", ")})
	}
	return list
}

// judgeAccount says whether orders could be made.
func judgeAccount(ca CA, probe issuer.Probe, state issuer.AccountState) Finding {
	name := ca.Issuer.Name()
	f := Finding{Subject: name, Check: "account", Status: OK}
	switch {
	case state.URL == "" && probe.NeedsEAB && !ca.EAB:
		f.Status, f.Text = Failure, "there is no account yet, and this CA wants an external account binding for one"
		f.Why = "the CA registers accounts of its customers only"
		f.Cure = fmt.Sprintf("get a key id and an HMAC key from the CA; in [ca.%s]:\n"+
			`eab = { kid = "KEY-ID", hmac_key = { file = "/etc/autocertd/eab.secret" } }`, name)
	case state.URL == "" && slices.Contains(ca.Challenges, dnschallenge.DNSAccount01):
		f.Status, f.Text = Warning, "no account yet; the first order registers one"
		f.Why = "the names of its dns-account-01 challenges follow from the account, so that they weren't tried"
		f.Cure = "autocertd account register " + name
	case state.URL == "":
		f.Text = "no account yet; the first order registers one"
	case state.Unknown:
		f.Status, f.Text = Warning, fmt.Sprintf("the CA doesn't know the account %s any more", state.URL)
		f.Why = "the next order registers its key again, and a CAA record with the old accounturi then forbids issuing"
		f.Cure = "if CAA records name the account, write the new URL there: autocertd check --live shows it after the next order"
	case state.Status != "valid":
		f.Status, f.Text = Failure, fmt.Sprintf("the account %s is %s", state.URL, state.Status)
		f.Why = "the CA takes no orders from it, and that can't be undone"
		f.Cure = fmt.Sprintf("to register a new one with the next order, move the folder %s out of the state directory",
			issuer.AccountKey(name, ca.Issuer.DirectoryURL()))
	default:
		f.Text = state.URL + " is valid"
	}
	return f
}

// round leaves of a duration what a person reads.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return max(d.Round(time.Millisecond), time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
