package zones

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
	"autocertd/internal/dnschallenge"
)

// maxAliases bounds a chain of CNAMEs. Resolvers give up at about the same length.
const maxAliases = 10

// Target is how a name leads to the place where its record is written. Names are lower case without trailing dot.
type Target struct {
	Chain    []string // the name, then every alias that was followed
	Wildcard string   // where a wildcard CNAME points that answers for the name and isn't followed
	Provider string
	Zone     string
}

// Name is where the record is written.
func (t Target) Name() string { return t.Chain[len(t.Chain)-1] }

// TXT returns the value as it is written there.
func (t Target) TXT(value string) TXT { return TXT{t.Provider, t.Zone, t.Name(), value} }

// String shows the chain.
func (t Target) String() string { return strings.Join(t.Chain, " -> ") }

// Locate finds the place to write for a name: it follows aliases (CNAME and DNAME), asking each zone's own servers and no
// cache, and takes the provider that serves the target. Signed with the provider's key, its servers answer from the view
// that the update goes to.
func (a *Asker) Locate(ctx context.Context, name string) (Target, error) {
	t := Target{Chain: []string{Canonical(name)}}
	if n := len(t.Name()); n > maxName {
		return t, fmt.Errorf("%s has %d characters, and a name in DNS has at most %d (RFC 1035, section 2.3.4): no CA can ask for it, so shorten the hostname", t, n, maxName)
	}
	by := "" // the record that led to the last name of the chain
	for {
		p, served := a.providerFor(t.Name())
		f, err := a.inspect(ctx, p, t.Name())
		if err == nil && f.alias != "" {
			f, t.Wildcard, err = a.distrust(ctx, p, t.Name(), f)
		}
		if refused, ok := errors.AsType[*refusedQuery](err); ok && len(t.Chain) > 1 && refused.rcode == dns.RcodeRefused {
			return t, a.noProvider(NoProviderError{Name: t.String(), Alias: by}, t)
		}
		if refused, ok := errors.AsType[*keyError](err); ok && ctx.Err() == nil {
			return t, fmt.Errorf("publishing %s: %w", t, p.explain(ctx, refused, t.Name()))
		}
		switch {
		case err != nil && (served || ctx.Err() != nil):
			return t, a.hinted(ctx, p, t, fmt.Errorf("finding the zone of %s: %w", t, err), "")
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

// maxName is how many characters a name has at most, without the trailing dot.
const maxName = 253

// noteZone remembers a zone that a name was found in.
func (a *Asker) noteZone(zone string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.located[zone] = true
}

// KnownZones are the zones that the providers name, and those that names were found in.
func (a *Asker) KnownZones() []string {
	zones := a.zones()
	a.mu.Lock()
	defer a.mu.Unlock()
	for zone := range a.located {
		zones = append(zones, zone)
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

// hinted adds a cure to an error, and which zone was probably meant, unless nobody answered, or a server that knows the zone has
// trouble with it: that is no matter of names.
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
// zone is known yet since the start.
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
		if server, _ := a.providerFor(d); d == "" || server.Name != p.Name || slices.Contains(asked, d) {
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

// explain asks the provider's client, where that can find it out, why a server doesn't take the key: the look-ups are the
// first to meet what the update would.
func (p Provider) explain(ctx context.Context, refused *keyError, name string) error {
	if p.ExplainKey == nil {
		return refused
	}
	explained := *refused
	explained.why = p.ExplainKey(ctx, refused.server, name)
	return &explained
}

// NoProviderError says that no configured provider serves a name.
type NoProviderError struct {
	Name      string   // with the aliases that lead to it
	Zone      string   // as DNS has it, "" when not known
	Alias     string   // the CNAME or DNAME, and its owner, that leads to a name that the servers of its provider refuse
	Delegated bool     // a provider serves the zone above, whose servers delegate this one
	Zones     []string // those that are served
	Meant     string   // a hostname in a zone that is known, from which this one differs by a slip; "" for none
	Unasked   error    // why it isn't known whether an alias leads elsewhere; nil when it is
}

// Error returns which name, and its zone where that is known.
func (e *NoProviderError) Error() string {
	text := "no provider serves " + e.Name
	if e.Zone != "" {
		text += ", which is in zone " + e.Zone
	}
	switch {
	case e.Alias != "":
		text += ": the servers refuse it"
	case e.Delegated:
		text += ", delegated to other servers"
	}
	return text
}

// Cure returns what to configure.
func (e *NoProviderError) Cure() string {
	switch {
	case e.Alias != "":
		return "add a provider for the zone of the target, or remove the " + e.Alias
	case e.Delegated:
		return "add a provider for those, with that zone in its zones"
	case e.Meant != "":
		return fmt.Sprintf("did you mean %s? If not, add its zone to zones of the provider that can write there", e.Meant)
	case len(e.Zones) == 0:
		return "none is configured that names its zones: set zones in the right one"
	}
	text := fmt.Sprintf("the providers serve %s: add the zone to zones of the right one, if that can write there", few(e.Zones))
	if e.Unasked != nil {
		text += `; if a CNAME leads from it to one of them, name resolvers that know it: [resolvers] public = ["ADDRESS"]`
	}
	return text
}

// few joins the first of several names.
func few(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// Meant returns the hostname that was probably meant by the name of a challenge that no zone holds, and its zone: one that
// differs from the end of the name by a slip or two. It returns nothing when none does.
func Meant(name string, zones []string) (host, zone string) {
	labels := strings.Split(dnschallenge.Hostname(Canonical(name)), ".")
	best := slips + 1
	for _, z := range zones {
		n := strings.Count(z, ".") + 1
		for have := max(1, n-1); have <= min(n+1, len(labels)); have++ { // a dot more or less is a slip, too
			end := strings.Join(labels[len(labels)-have:], ".")
			d := distance(end, z)
			if d == 0 || d >= best || 4*d > len(z) {
				continue
			}
			best, host, zone = d, z, z
			if begin := labels[:len(labels)-have]; len(begin) > 0 {
				host = strings.Join(begin, ".") + "." + z
			}
		}
	}
	return host, zone
}

// slips is how many characters may be wrong, missing, too many, or changed with their neighbour.
const slips = 2

// distance is how many such slips lead from one word to the other.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		older := before
		before, row = row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(before[j+1]+1, row[j]+1, before[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

// providerFor returns the provider with the longest zone that holds the name. A lone provider without zones serves
// whatever its servers do.
func (a *Asker) providerFor(name string) (best Provider, ok bool) {
	providers := a.providers
	if len(providers) == 1 && len(providers[0].Zones) == 0 {
		return providers[0], true
	}
	longest := -1
	for _, p := range providers {
		for _, zone := range p.Zones {
			if inZone(name, zone) && len(zone) > longest {
				best, longest = p, len(zone)
			}
		}
	}
	return best, longest >= 0
}

func (a *Asker) zones() (zones []string) {
	for _, p := range a.providers {
		zones = append(zones, p.Zones...)
	}
	return zones
}

// named reports whether a provider names a zone that holds the name, other than the given one.
func (a *Asker) named(name, other string) bool {
	return slices.ContainsFunc(a.zones(), func(zone string) bool { return zone != other && inZone(name, zone) })
}

// finding is what DNS says about a name: it is an alias, or lies in a zone.
type finding struct {
	alias string
	dname string // whose record the alias follows from, "" when it is a CNAME's own
	zone  string
	cut   bool // the servers that were asked delegate the zone to others
}

// distrust looks whether an alias comes from a wildcard: a random name beside gets the same answer. Such a CNAME wasn't
// written for challenges, and a record of the name itself takes its place. It is followed all the same when the provider of
// another zone was configured for its target, or when nobody serves the zone of the name itself.
func (a *Asker) distrust(ctx context.Context, p Provider, name string, f finding) (real finding, wildcard string, err error) {
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
	zone, err := a.apex(ctx, p, parent)
	if _, served := a.providerFor(name); err != nil || zone == "" || !served || a.named(f.alias, zone) {
		return f, "", err
	}
	return finding{zone: zone}, f.alias, nil
}

// inspect finds out where the alias of a name points, or else which zone holds it, "" when no answer says so. It asks for
// the CNAME: the answer is either that, and nothing that follows it, or a denial with the zone's SOA (RFC 2308).
//
// A provider's own servers are asked where it has any; resolvers otherwise, or when those servers don't know the name.
func (a *Asker) inspect(ctx context.Context, p Provider, name string) (finding, error) {
	if len(p.Servers) > 0 {
		answer, err := a.askOwn(ctx, p, question(name, dns.TypeCNAME, false))
		if err == nil {
			return findingIn(answer, name), nil
		}
		var refused *refusedQuery
		if !errors.As(err, &refused) {
			return finding{}, err
		}
		if len(a.resolving) == 0 {
			// This machine's resolvers don't say what zone the provider writes to, but where an alias of another zone leads.
			f, failed := a.aliasElsewhere(ctx, p, name)
			if failed != nil || f.alias == "" {
				return finding{}, err
			}
			return f, nil
		}
	} else if p.Name == "" && len(a.resolving) == 0 {
		return a.aliasElsewhere(ctx, p, name)
	}
	resolvers, err := a.resolvers()
	if err != nil {
		return finding{}, err
	}
	return a.inspectBy(ctx, resolvers, p, name)
}

// deafFor is how long this machine's resolvers aren't asked again about the zones of others when they didn't answer.
const deafFor = time.Minute

var errDeaf = errors.New("this machine's resolvers don't answer")

// aliasElsewhere asks this machine's resolvers about a name of a zone that no provider serves.
func (a *Asker) aliasElsewhere(ctx context.Context, p Provider, name string) (finding, error) {
	resolvers, err := a.ownResolvers()
	if err != nil {
		return finding{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	f, err := a.inspectBy(ctx, resolvers, p, name)
	a.heard(err)
	return f, err
}

// ownResolvers are this machine's, unless they didn't answer a moment ago.
func (a *Asker) ownResolvers() ([]string, error) {
	a.mu.Lock()
	deaf := !a.deaf.IsZero() && time.Since(a.deaf) < deafFor
	a.mu.Unlock()
	if deaf {
		return nil, errDeaf
	}
	return a.cfg.System()
}

// heard notes whether this machine's resolvers answered.
func (a *Asker) heard(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.deaf = (time.Time{}); Silent(err) {
		a.deaf = time.Now()
	}
}

// inspectBy is inspect by resolvers.
func (a *Asker) inspectBy(ctx context.Context, resolvers []string, p Provider, name string) (finding, error) {
	answer, err := askFirst(ctx, unsigned(resolvers), question(name, dns.TypeCNAME, true))
	if err != nil {
		return finding{}, err
	}
	f := findingIn(answer, name)
	if f.zone == "" {
		if f.zone, err = climb(ctx, unsigned(resolvers), name, true); err != nil {
			return finding{}, err
		}
	}
	if fresh, ok := a.freshly(ctx, p, f.zone, name); ok {
		return fresh, nil
	}
	return f, nil
}

// askOwn asks a provider's own servers in turn, the one that answered last first: a dead one costs its time once.
func (a *Asker) askOwn(ctx context.Context, p Provider, q *dns.Msg) (*dns.Msg, error) {
	servers := p.servers()
	a.mu.Lock()
	good := slices.IndexFunc(servers, func(at server) bool { return at.addr == a.answering[p.Name] })
	a.mu.Unlock()
	if good > 0 {
		servers[0], servers[good] = servers[good], servers[0]
	}
	var failures []error
	for _, at := range servers {
		reply, err := askFirst(ctx, []server{at}, q)
		if err == nil {
			a.mu.Lock()
			a.answering[p.Name] = at.addr
			a.mu.Unlock()
			a.Heard(p.Name, nil)
			return reply, nil
		}
		failures = append(failures, err)
	}
	err := cure.Join(failures...)
	a.Heard(p.Name, err)
	return nil, err
}

// freshly asks the servers of a zone that resolvers found, since a cache may still hold what was there before. It reports
// false when they can't be asked from here.
func (a *Asker) freshly(ctx context.Context, p Provider, zone, name string) (finding, bool) {
	if zone == "" {
		return finding{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	servers, err := a.serversOf(ctx, p, zone)
	if err != nil {
		return finding{}, false
	}
	answer, err := askFirst(ctx, servers, question(name, dns.TypeCNAME, false))
	if err != nil {
		return finding{}, false
	}
	f := findingIn(answer, name)
	return f, f.alias != "" || f.zone != ""
}

// apex returns the zone that holds a name, asked where inspect asks.
func (a *Asker) apex(ctx context.Context, p Provider, name string) (string, error) {
	if len(p.Servers) > 0 {
		return climb(ctx, p.servers(), name, false)
	}
	resolvers, err := a.resolvers()
	if err != nil {
		return "", err
	}
	return climb(ctx, unsigned(resolvers), name, true)
}

// climb looks for the zone's apex, name by name upwards: some resolvers leave the SOA out of denials, and the answer for
// an alias tells of the target's zone.
func climb(ctx context.Context, servers []server, name string, recurse bool) (zone string, err error) {
	for apex, more := name, true; more; _, apex, more = strings.Cut(apex, ".") {
		answer, err := askFirst(ctx, servers, question(apex, dns.TypeSOA, recurse))
		if err != nil {
			return "", err
		}
		if f := findingIn(answer, apex); f.alias == "" && f.zone != "" && !f.cut {
			return f.zone, nil
		}
	}
	return "", nil
}

// resolvers returns the configured resolvers, else this machine'a.
func (a *Asker) resolvers() ([]string, error) {
	if len(a.resolving) > 0 {
		return a.resolving, nil
	}
	return a.cfg.System()
}

// anyServers reports whether the servers of some zones are named, so that this machine's view of DNS isn't wanted.
func (a *Asker) anyServers() bool {
	return slices.ContainsFunc(a.providers, func(p Provider) bool { return len(p.Servers) > 0 })
}
