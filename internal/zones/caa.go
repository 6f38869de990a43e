package zones

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"autocertd/internal/dnsname"
	"autocertd/internal/printable"
)

// CAASet is the relevant set of CAA records of a hostname (RFC 8659, section 3): that of the nearest name upwards that has
// any. Names are lower case without trailing dot.
type CAASet struct {
	Domain  string // the hostname or the name above that has the records; "" when no name has
	Owner   string // where they are written: Domain, or what it is an alias of
	Zone    string // the nearest zone on the way up; "" when no answer names one
	Records []CAARecord

	// Unseen is the name at which the way up ended, since no server could be asked: our own don't serve it, no resolver is
	// configured, and this machine's don't answer. It is "" when the set is the one that a CA sees.
	Unseen string
}

// CAARecord is one CAA record.
type CAARecord struct {
	Flag  uint8
	Tag   string
	Value string
}

// String returns the record as zone files have it.
func (r CAARecord) String() string { return fmt.Sprintf("%d %s %q", r.Flag, r.Tag, r.Value) }

// CAA looks for the CAA records that a CA obeys when it issues for the hostname, a wildcard or not. It asks the configured
// resolvers, which see what the CA sees; without any, each zone's own servers, or this machine's resolvers when no provider
// has servers. A CA takes a look-up that fails for a refusal, too.
func (a *Asker) CAA(ctx context.Context, hostname string) (set CAASet, err error) {
	name := strings.TrimPrefix(dnsname.Canonical(hostname), "*.")
	for domain, more := name, name != ""; more; _, domain, more = strings.Cut(domain, ".") {
		at, err := a.caaAt(ctx, domain)
		switch {
		case errors.Is(err, errUnseen):
			set.Unseen = domain
			return set, nil
		case err != nil:
			return CAASet{}, fmt.Errorf("the CAA records of %s can't be looked up: %w", domain, err)
		}
		if set.Zone == "" {
			set.Zone = at.Zone
		}
		if len(at.Records) > 0 {
			set.Domain, set.Owner, set.Records = domain, at.Owner, at.Records
			return set, nil
		}
	}
	return set, nil
}

// errUnseen says that no server that may be asked knows a name.
var errUnseen = errors.New("no server can be asked")

// caaAt returns the records of one name. It follows aliases, as resolvers do; servers of a zone leave that to resolvers.
func (a *Asker) caaAt(ctx context.Context, domain string) (at CAASet, err error) {
	at.Owner = domain
	for range 1 + maxAliases {
		answer, err := a.askCAA(ctx, at.Owner)
		if err != nil {
			return at, err
		}
		if at.Owner == domain {
			at.Zone = zoneIn(answer, domain)
		}
		asked := at.Owner
		at.Owner = lastAlias(answer, asked)
		at.Records = caaIn(answer, at.Owner)
		if len(at.Records) > 0 || at.Owner == asked {
			return at, nil
		}
	}
	return at, fmt.Errorf("more than %d CNAMEs in a row lead from it, or they go round in a circle", maxAliases)
}

// askCAA asks for the CAA records of a name: the configured resolvers, else the zone's own servers, else this machine's
// resolvers about the zones that none of those serves.
func (a *Asker) askCAA(ctx context.Context, name string) (*dns.Msg, error) {
	if len(a.resolving) > 0 {
		return asked(askFirst(ctx, unsigned(a.resolving), question(name, dns.TypeCAA, true)))
	}
	p, _, served := a.ProviderFor(name)
	if len(p.Servers) > 0 {
		answer, err := askFirst(ctx, p.servers(), question(name, dns.TypeCAA, false))
		refused, isRefused := errors.AsType[*refusedQuery](err)
		if isRefused && refused.rcode != dns.RcodeRefused || err != nil && !isRefused || err == nil && answer.Authoritative {
			return asked(answer, err)
		}
	} else if served || !a.anyServers() {
		resolvers, err := a.resolvers()
		if err != nil {
			return nil, err
		}
		return asked(askFirst(ctx, unsigned(resolvers), question(name, dns.TypeCAA, true)))
	}
	resolvers, err := a.ownResolvers()
	if err != nil {
		return nil, errUnseen
	}
	ctx, cancel := context.WithTimeout(ctx, freshTimeout)
	defer cancel()
	answer, err := askFirst(ctx, unsigned(resolvers), question(name, dns.TypeCAA, true))
	if a.noteOwnResolvers(err); err != nil { // what keeps this machine from an answer needn't keep a CA
		return nil, errUnseen
	}
	return answer, nil
}

// asked shortens the error of a server that refuses.
func asked(answer *dns.Msg, err error) (*dns.Msg, error) {
	if refused, ok := errors.AsType[*refusedQuery](err); ok {
		return nil, fmt.Errorf("%s answers %s", refused.server, dns.RcodeToString[refused.rcode])
	}
	return answer, err
}

func caaIn(answer *dns.Msg, owner string) (records []CAARecord) {
	for _, rr := range answer.Answer {
		if caa, ok := rr.(*dns.CAA); ok && dnsname.Canonical(caa.Hdr.Name) == owner {
			records = append(records, CAARecord{caa.Flag, printable.Line(caa.Tag), printable.Line(caa.Value)})
		}
	}
	slices.SortFunc(records, func(a, b CAARecord) int { return strings.Compare(a.String(), b.String()) }) // servers shuffle
	return records
}
