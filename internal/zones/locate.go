package zones

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
	"autocertd/internal/dnschallenge"
	"autocertd/internal/dnsname"
)

// maxAliases bounds a chain of CNAMEs. Resolvers give up at about the same length.
const maxAliases = 10

// maxName bounds the characters of a name, without the trailing dot (RFC 1035, section 2.3.4).
const maxName = 253

// Target is the place where the record of a name is written, and the chain of aliases that leads there. Names are lower case
// without trailing dot.
type Target struct {
	Chain    []string // the name, then every alias that was followed
	Wildcard string   // where a wildcard CNAME points that answers for the name and isn't followed
	Provider string
	Zone     string
}

// Name returns the name at which the record is written.
func (t Target) Name() string { return t.Chain[len(t.Chain)-1] }

// TXT returns the value as it is written there.
func (t Target) TXT(value string) TXT { return TXT{t.Provider, t.Zone, t.Name(), value} }

// String returns the chain.
func (t Target) String() string { return strings.Join(t.Chain, " -> ") }

// Locate finds the place to write for a name: it follows aliases (CNAME and DNAME), asking each zone's own servers and no
// cache, and takes the provider that serves the target. Signed with the provider's key, its servers answer from the view
// that the update goes to.
func (a *Asker) Locate(ctx context.Context, name string) (Target, error) {
	t := Target{Chain: []string{dnsname.Canonical(name)}}
	if n := len(t.Name()); n > maxName {
		return t, cure.New(fmt.Sprintf("%s has %d characters, and a name in DNS has at most %d (RFC 1035, section 2.3.4): no CA can ask for it", t, n, maxName),
			"shorten the hostname")
	}
	by := "" // the record that led to the last name of the chain
	for {
		p, _, served := a.ProviderFor(t.Name())
		f, err := a.inspect(ctx, p, t.Name())
		if err == nil && f.alias != "" {
			f, t.Wildcard, err = a.passWildcard(ctx, p, t.Name(), f)
		}
		if refused, ok := errors.AsType[*refusedQuery](err); ok && len(t.Chain) > 1 && refused.rcode == dns.RcodeRefused {
			return t, a.noProvider(NoProviderError{Name: t.String(), Alias: by}, t)
		}
		if refused, ok := errors.AsType[*keyError](err); ok && ctx.Err() == nil {
			return t, cure.For("publishing", t.String(), p.explain(ctx, refused, t.Name()))
		}
		switch {
		case err != nil && (served || ctx.Err() != nil):
			return t, a.hinted(ctx, p, t, cure.For("finding the zone of", t.String(), err), "")
		case f.alias == "" && (!served || f.cut):
			return t, a.noProvider(NoProviderError{Name: t.String(), Zone: f.zone, Delegated: f.cut && served, Unasked: err}, t)
		case f.alias == "" && f.zone == "":
			return t, a.hinted(ctx, p, t, fmt.Errorf("finding the zone of %s: the servers of provider %q name no zone", t, p.Name),
				"perhaps it is delegated to others: dig NS "+t.Name())
		case f.alias == "":
			t.Provider, t.Zone = p.Name, f.zone
			a.noteZone(f.zone)
			return t, nil
		}
		if by = "CNAME at " + t.Name(); f.dname != "" {
			by = "DNAME at " + f.dname
		}
		known := slices.Contains(t.Chain, f.alias)
		t.Chain = append(t.Chain, f.alias)
		switch {
		case known:
			return t, cure.New(t.String()+": the CNAMEs go round in a circle", "remove one of them")
		case len(t.Chain) > 1+maxAliases:
			return t, fmt.Errorf("%s: more than %d CNAMEs in a row; resolvers follow no longer chain", t, maxAliases)
		}
	}
}

// hinted adds a cure to an error, and the zone that was probably meant. It doesn't when no server answered, or when one that
// knows the zone has trouble with it: no other name would help then.
func (a *Asker) hinted(ctx context.Context, p Provider, t Target, err error, hint string) error {
	if refused, ok := errors.AsType[*refusedQuery](err); Silent(err) || ok && refused.rcode == dns.RcodeServerFailure {
		return err
	}
	host, _ := Meant(t.Chain[0], a.KnownZones())
	if host == "" {
		a.locateOthers(ctx, p, t.Chain[0])
		host, _ = Meant(t.Chain[0], a.KnownZones())
	}
	switch zones := a.KnownZones(); {
	case host != "" && hint != "":
		hint = fmt.Sprintf("did you mean %s? If not, %s", host, hint)
	case host != "":
		hint = fmt.Sprintf("did you mean %s?", host)
	case len(zones) > 0:
		others := "other names are in " + few(zones)
		if hint != "" {
			hint += "; "
		}
		hint += others
	}
	return cure.With(err, hint)
}

// locateOthers finds the zones of a few other hostnames that the same provider serves: where all have their certificates, no
// zone has been found since the start.
func (a *Asker) locateOthers(ctx context.Context, p Provider, name string) {
	const most = 3
	domain := func(host string) string {
		_, domain, _ := strings.Cut(host, ".")
		return domain
	}
	asked := append(a.KnownZones(), domain(dnschallenge.Hostname(name)))
	tries := 0
	for _, host := range a.hostnames {
		if tries == most || ctx.Err() != nil {
			return
		}
		d := domain(host)
		if other, _, _ := a.ProviderFor(d); d == "" || other.Name != p.Name || slices.Contains(asked, d) {
			continue
		}
		asked = append(asked, d)
		tries++
		if f, err := a.inspect(ctx, p, d); err == nil && f.alias == "" && f.zone != "" && !f.cut {
			a.noteZone(f.zone)
		}
	}
}

func (a *Asker) noProvider(e NoProviderError, t Target) *NoProviderError {
	e.Zones = a.zones()
	if e.Alias == "" && !e.Delegated {
		e.Meant, _ = Meant(t.Chain[0], a.KnownZones())
	}
	return &e
}

// explain adds to the error of a server that doesn't take the key why it doesn't, where the provider can find that out: a
// look-up fails before the update would.
func (p Provider) explain(ctx context.Context, refused *keyError, name string) error {
	if p.ExplainKey == nil {
		return refused
	}
	explained := *refused
	explained.why = p.ExplainKey(ctx, refused.server, name)
	return &explained
}

// passWildcard passes over an alias that comes from a wildcard, which a random name beside shows by the same answer. Such a
// CNAME wasn't written for challenges, and a record of the name itself takes its place. It is followed nevertheless when the
// provider of another zone is configured for its target, or when no provider serves the zone of the name itself.
func (a *Asker) passWildcard(ctx context.Context, p Provider, name string, f location) (real location, wildcard string, err error) {
	_, parent, _ := strings.Cut(name, ".")
	if parent == "" {
		return f, "", nil
	}
	beside, err := a.inspect(ctx, p, randomLabel()+"."+parent)
	if _, refused := errors.AsType[*refusedQuery](err); refused { // the alias itself was found elsewhere
		return f, "", nil
	}
	if err != nil || beside.alias != f.alias {
		return f, "", err
	}
	servers, recurse, err := a.knowing(p)
	if err != nil {
		return f, "", err
	}
	zone, err := findApex(ctx, servers, parent, recurse)
	if _, _, served := a.ProviderFor(name); err != nil || zone == "" || !served || a.named(f.alias, zone) {
		return f, "", err
	}
	return location{zone: zone}, f.alias, nil
}

// randomLabel returns a name that no zone has.
func randomLabel() string { return "autocertd-" + strings.ToLower(rand.Text()) }

// inspect finds out where the alias of a name points, or else which zone holds it, "" when no answer says so. It asks for
// the CNAME: the answer is either that, and nothing that follows it, or a denial with the zone's SOA (RFC 2308).
//
// A provider's own servers are asked where it has any; resolvers otherwise, or when those servers don't know the name.
func (a *Asker) inspect(ctx context.Context, p Provider, name string) (location, error) {
	if len(p.Servers) > 0 {
		answer, err := a.askOwn(ctx, p, question(name, dns.TypeCNAME, false))
		if err == nil {
			return locationIn(answer, name), nil
		}
		var refused *refusedQuery
		if !errors.As(err, &refused) {
			return location{}, err
		}
		if len(a.resolving) == 0 {
			// This machine's resolvers don't say what zone the provider writes to, but where an alias of another zone leads.
			f, failed := a.aliasElsewhere(ctx, p, name)
			if failed != nil || f.alias == "" {
				return location{}, err
			}
			return f, nil
		}
	} else if p.Name == "" && len(a.resolving) == 0 {
		return a.aliasElsewhere(ctx, p, name)
	}
	resolvers, err := a.resolvers()
	if err != nil {
		return location{}, err
	}
	return a.inspectBy(ctx, resolvers, p, name)
}

// aliasElsewhere asks this machine's resolvers about a name of a zone that no provider serves.
func (a *Asker) aliasElsewhere(ctx context.Context, p Provider, name string) (location, error) {
	resolvers, err := a.ownResolvers()
	if err != nil {
		return location{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	f, err := a.inspectBy(ctx, resolvers, p, name)
	a.noteOwnResolvers(err)
	return f, err
}

// inspectBy finds out the same from resolvers.
func (a *Asker) inspectBy(ctx context.Context, resolvers []string, p Provider, name string) (location, error) {
	answer, err := askFirst(ctx, unsigned(resolvers), question(name, dns.TypeCNAME, true))
	if err != nil {
		return location{}, err
	}
	f := locationIn(answer, name)
	if f.zone == "" {
		if f.zone, err = findApex(ctx, unsigned(resolvers), name, true); err != nil {
			return location{}, err
		}
	}
	if fresh, ok := a.freshly(ctx, p, f.zone, name); ok {
		return fresh, nil
	}
	return f, nil
}

// freshly asks the servers of a zone that resolvers found, since a cache may still hold what was there before. It reports
// false when they can't be asked from here.
func (a *Asker) freshly(ctx context.Context, p Provider, zone, name string) (location, bool) {
	if zone == "" {
		return location{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	servers, err := a.serversOf(ctx, p, zone)
	if err != nil {
		return location{}, false
	}
	answer, err := askFirst(ctx, servers, question(name, dns.TypeCNAME, false))
	if err != nil {
		return location{}, false
	}
	f := locationIn(answer, name)
	return f, f.alias != "" || f.zone != ""
}

// findApex looks for the apex of a name's zone, name by name upwards: some resolvers leave the SOA out of denials, and the
// answer for an alias has that of the target's zone.
func findApex(ctx context.Context, servers []server, name string, recurse bool) (zone string, err error) {
	for apex, more := name, true; more; _, apex, more = strings.Cut(apex, ".") {
		answer, err := askFirst(ctx, servers, question(apex, dns.TypeSOA, recurse))
		if err != nil {
			return "", err
		}
		if f := locationIn(answer, apex); f.alias == "" && f.zone != "" && !f.cut {
			return f.zone, nil
		}
	}
	return "", nil
}
