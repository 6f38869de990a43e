package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/suggest"
)

const addProvider = "add:\n[provider.bind]\ntype = \"rfc2136\"\nserver = \"ns1.your.domain\"\nkey_file = \"/etc/autocertd/tsig.key\""

func (l *loader) buildProviders(tables field[map[string]field[rawProvider]]) {
	raw := tables.Value
	if len(raw) == 0 && (tables.ok || !tables.set) && !l.incomplete {
		l.fail(place{file: l.config.Path, key: "provider"}, "no provider is configured", addProvider)
	}
	owners := map[string]place{}
	for _, name := range inOrder(raw, l.config.Files) {
		f := raw[name]
		l.checkName(name, f.at)
		if !f.ok {
			continue
		}
		if len(raw) > 1 && !f.Value.Zones.set {
			l.fail(f.at, "has no zones, and with several providers each must name its own", `zones = ["corp.example.com"]`)
		}
		p := l.buildProvider(name, f, owners)
		l.config.Providers = append(l.config.Providers, p)
		l.checkProvider(p, f.at)
	}
}

func (l *loader) buildProvider(name string, f field[rawProvider], owners map[string]place) *Provider {
	raw := f.Value
	p := &Provider{
		Name:               name,
		Type:               raw.Type.Value,
		Check:              l.oneOf(raw.Check, "authoritative", "primary", "resolvers", "none"),
		Settle:             raw.Settle.Value,
		PropagationTimeout: l.duration(raw.PropagationTimeout, DefaultPropagationTimeout),
		TTL:                l.duration(raw.TTL, DefaultTTL),
		sources:            l.checks.Sources,
		options:            &raw.Options,
	}
	if !raw.Type.set || raw.Type.ok && p.Type == "" {
		for _, key := range slices.Sorted(maps.Keys(raw.Options.values)) { // which the type would have decoded
			if near := suggest.Nearest(key, []string{"type"}); near != "" {
				at := f.at.below(key)
				at.line = raw.Options.marks.key(key).line
				l.problems = append(l.problems, Problem{
					File:    at.file,
					Line:    at.line,
					Key:     at.key,
					Message: "unknown key",
					Hint:    "did you mean type?",
					meant:   f.at.below(near).key,
				})
			}
		}
		l.missing(f.at, "type", "has no type", `type = "rfc2136" for BIND and other servers that take dynamic updates`)
	}
	if p.TTL%time.Second != 0 {
		l.fail(raw.TTL.at, "must be whole seconds", "")
	}
	for _, f := range raw.Zones.Value {
		if zone, ok := l.zone(f, owners); ok {
			p.Zones = append(p.Zones, zone)
		}
	}
	if raw.Zones.ok && len(raw.Zones.Value) == 0 {
		l.fail(raw.Zones.at, "is empty", "leave it out when there is one provider")
	}
	for _, f := range raw.Nameservers.Value {
		if address, ok := l.address(f, nameOrIP); ok {
			p.Nameservers = append(p.Nameservers, address)
		}
	}
	l.checkWaiting(p, raw)
	return p
}

// checkWaiting looks whether those can be asked that are to be asked for records.
func (l *loader) checkWaiting(p *Provider, raw rawProvider) {
	if p.Check == "resolvers" && !l.resolvers && !l.incomplete {
		l.fail(raw.Check.at, "there are no resolvers to ask", "add:\n[resolvers]\npublic = [\"192.0.2.53\"]")
	}
	f := raw.MinNameservers
	if !f.ok {
		return
	}
	p.MinNameservers = f.Value
	listed := len(raw.Nameservers.Value)
	switch {
	case f.Value < 1:
		l.fail(f.at, fmt.Sprintf("%d must be at least 1", f.Value), "leave it out to wait for all servers")
	case raw.Nameservers.ok && listed > 0 && f.Value > listed:
		l.fail(f.at, fmt.Sprintf("%d is more than the servers that nameservers lists, %d", f.Value, listed), "leave it out to wait for all of them")
	}
}

// duration returns a duration from one second to one day.
func (l *loader) duration(f field[time.Duration], otherwise time.Duration) time.Duration {
	if !f.ok {
		return otherwise
	}
	if f.Value < time.Second || f.Value > 24*time.Hour {
		l.fail(f.at, "must be between 1s and 24h", "")
		return otherwise
	}
	return f.Value
}

func (l *loader) zone(f field[string], owners map[string]place) (string, bool) {
	if !f.ok {
		return "", false
	}
	zone, err := normalZone(f.Value)
	if err != nil {
		l.fail(f.at, fmt.Sprintf("%q %s", shorten(f.Value), err), "")
		return "", false
	}
	if other, taken := owners[zone]; taken {
		l.fail(f.at, fmt.Sprintf("zone %q is listed already at %s", zone, other), "a zone has one provider")
		return "", false
	}
	owners[zone] = f.at
	return zone, true
}

// checkProvider lets the caller build the provider.
func (l *loader) checkProvider(p *Provider, at place) {
	if l.checks.Provider == nil || p.Type == "" {
		return
	}
	err := l.checks.Provider(p)
	if problems, ok := errors.AsType[Problems](err); ok {
		l.problems = append(l.problems, problems...)
	} else if err != nil {
		for _, mistake := range cure.Parts(err) {
			at, mistake := p.options.about(at, mistake)
			problem := at.problem(mistake.Error(), cure.Of(mistake))
			problem.unreadable = errors.Is(err, fs.ErrPermission)
			l.problems = append(l.problems, problem)
		}
	}
}

// about returns the place of the key that a mistake in a provider's table is about, and the mistake without it; the table's
// own place when it names none.
func (r *rest) about(table place, mistake error) (place, error) {
	if keyed, ok := mistake.(interface {
		Key() string
		Unwrap() error
	}); ok {
		if mark, found := r.marks.keys[keyed.Key()]; found {
			return place{file: table.file, line: mark.line, key: table.key + "." + keyed.Key()}, keyed.Unwrap()
		}
	}
	return table, mistake
}
