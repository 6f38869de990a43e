package preflight

import (
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/cure"
	"autocertd/internal/zones"
)

// judgeViews compares how a zone looks to whom, and who sees a record that was written. The first view is the one that
// updates go to.
func judgeViews(at place, views []zones.View, glances []zones.Glance) []Finding {
	if len(views) == 0 {
		return nil // an API's zone, and no resolvers
	}
	f := compareViews(at, views)
	judgeGlances(&f, at, glances)
	return []Finding{f}
}

func compareViews(at place, views []zones.View) Finding {
	alike := group(views)
	f := Finding{Subject: at.zone, Check: "views", Status: OK}
	if len(alike) == 1 && alike[0][0].Err == nil {
		f.Text = "all who were asked say that its name servers are " + listFew(alike[0][0].Nameservers)
		return f
	}
	texts := make([]string, len(alike))
	for i, some := range alike {
		texts[i] = tell(at.zone, some)
	}
	f.Text = strings.Join(texts, "; ")
	outside := slices.DeleteFunc(slices.Clone(views), func(v zones.View) bool { return !v.Outside })
	other := slices.IndexFunc(outside, func(v zones.View) bool { return !v.Same(views[0]) })
	switch {
	case len(outside) > 0 && other < 0:
		return f // the key opens what the outside sees, whatever the inside looks like
	case len(outside) == 0:
		f.Why = "the CA sees the zone from outside, and it isn't known which of these that is"
		f.Cure = addResolvers
	default:
		f.Why = "the CA sees the zone from outside: a record that only the inside has is none"
		f.Cure = cureView(at, views[0], outside[other])
	}
	f.Status = Warning
	return f
}

// judgeGlances adds to a finding who doesn't see a record that the servers have: the zone has several views (split horizon),
// though its name servers may be called the same in all of them.
func judgeGlances(f *Finding, at place, glances []zones.Glance) {
	var seen, blind, cached, inside []string
	outside := 0
	for _, g := range glances {
		said := g.Who + " " + g.Answer
		switch {
		case g.Err != nil: // the views tell it
			continue
		case g.Answer == "":
			seen = append(seen, g.Who)
		case g.Outside && g.Cached > 0:
			cached = append(cached, fmt.Sprintf("%s, from its cache, for another %s", said, g.Cached))
		case g.Outside:
			blind = append(blind, said)
		default:
			inside = append(inside, said)
		}
		if g.Outside {
			outside++
		}
	}
	switch {
	case len(blind) > 0:
		f.Status = Failure
		f.Text += "; a record that its servers have is hidden from the outside: " + strings.Join(blind, "; ")
		f.Why = "the update changes another view of the zone than the one that the CA sees (split horizon)"
		f.Cure = splitCure(glances[0].Key)
	case len(cached) > 0:
		f.Status = Warning
		f.Text += "; whether the outside sees a new record isn't known: " + strings.Join(cached, "; ")
		f.Why, f.Cure = "somebody asked for the name a moment ago, and resolvers remember that there was nothing", "check again when that time is over"
	case len(inside) > 0 && outside == 0:
		f.Status = Warning
		f.Text += "; a record that its servers have with the key is hidden without it: " + strings.Join(inside, "; ")
		f.Why = "the key opens another view of the zone (split horizon), and it isn't known which of the two the CA sees"
		f.Cure = addResolvers + "\nor, if the CA asks from where this machine is, " + splitCure(glances[0].Key)
	case len(inside) > 0:
		f.Text += "; only without the key the inside sees another view"
	case len(seen) > 0:
		f.Text += "; a new record is seen by " + listFew(seen)
	}
}

// splitCure is what to do where updates with a key change another view than the one that the CA sees.
func splitCure(key string) string {
	move := "move the challenges to a zone that has one view:\nautocertd check --delegation ZONE"
	if key == "" {
		return "let the updates go to the view that the CA sees, or " + move
	}
	return fmt.Sprintf("let the key open the CA's view, and no other; in the statement of that view in named.conf:\nmatch-clients { key %q; … };\nor %s", key, move)
}

// group puts views together that are the same.
func group(views []zones.View) (groups [][]zones.View) {
	for _, v := range views {
		i := slices.IndexFunc(groups, func(g []zones.View) bool { return g[0].Same(v) || g[0].Err != nil && cure.Same(g[0].Err, v.Err) })
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], v)
	}
	return groups
}

// tell says what some see, who see the same.
func tell(zone string, some []zones.View) string {
	who := make([]string, len(some))
	for i, v := range some {
		who[i] = v.Who
	}
	text, v := strings.Join(who, " and ")+": ", some[0]
	switch {
	case v.Err != nil:
		return text + v.Err.Error()
	case v.Zone == zone:
		return text + "on " + listFew(v.Nameservers)
	case v.Zone == "":
		return text + "no such zone"
	}
	return text + "no such zone, only " + v.Zone
}

// cureView is what to do where the outside doesn't see what updates change.
func cureView(at place, inside, outside zones.View) string {
	switch {
	case outside.Err != nil || inside.Err != nil:
		return "see what is wrong with the answer:\ndig SOA " + at.zone
	case outside.Zone != at.zone:
		cure := "move the challenges to a zone that the outside sees:\nautocertd check --delegation ZONE"
		if len(inside.Nameservers) > 0 {
			cure += fmt.Sprintf("\nor, if these servers may be asked from outside, add to the zone above:\n%s. 300 IN NS %s.", at.zone, inside.Nameservers[0])
		}
		return cure
	}
	servers := outside.Nameservers[:min(len(outside.Nameservers), lateShown)]
	quoted := make([]string, len(servers))
	for i, ns := range servers {
		quoted[i] = fmt.Sprintf("%q", ns)
	}
	return fmt.Sprintf("if the servers that the outside sees get the records, wait for those, in [provider.%s]:\nnameservers = [%s]\n"+
		"or, if they can't be asked from here:\ncheck = \"primary\"", at.provider, strings.Join(quoted, ", "))
}
