package preflight

import (
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/dns01"
)

// judgeViews compares how a zone looks to whom. The first view is the one that updates go to.
func judgeViews(at place, views []dns01.View) []Finding {
	if len(views) == 0 {
		return nil // an API's zone, and no resolvers
	}
	alike := group(views)
	f := Finding{Subject: at.zone, Check: "views", Status: OK}
	if len(alike) == 1 && alike[0][0].Err == "" {
		f.Text = "everybody sees it on " + strings.Join(alike[0][0].Nameservers, ", ")
		return []Finding{f}
	}
	texts := make([]string, len(alike))
	for i, some := range alike {
		texts[i] = tell(at.zone, some)
	}
	f.Text = strings.Join(texts, "; ")
	outside := slices.DeleteFunc(slices.Clone(views), func(v dns01.View) bool { return !v.Outside })
	other := slices.IndexFunc(outside, func(v dns01.View) bool { return !v.Same(views[0]) })
	switch {
	case len(outside) > 0 && other < 0:
		return []Finding{f} // the key opens what the outside sees, whatever the inside looks like
	case len(outside) == 0:
		f.Why = "the CA sees the zone from outside, and it isn't known which of these that is"
		f.Cure = addResolvers
	default:
		f.Why = "the CA sees the zone from outside: a record that only the inside has is none"
		f.Cure = cureView(at, views[0], outside[other])
	}
	f.Status = Warning
	return []Finding{f}
}

// group puts views together that are the same.
func group(views []dns01.View) (groups [][]dns01.View) {
	for _, v := range views {
		i := slices.IndexFunc(groups, func(g []dns01.View) bool { return g[0].Same(v) || g[0].Err != "" && g[0].Err == v.Err })
		if i < 0 {
			groups = append(groups, nil)
			i = len(groups) - 1
		}
		groups[i] = append(groups[i], v)
	}
	return groups
}

// tell says what some see, who see the same.
func tell(zone string, some []dns01.View) string {
	who := make([]string, len(some))
	for i, v := range some {
		who[i] = v.Who
	}
	text, v := strings.Join(who, " and ")+": ", some[0]
	switch {
	case v.Err != "":
		return text + v.Err
	case v.Zone == zone:
		return text + "on " + strings.Join(v.Nameservers, ", ")
	case v.Zone == "":
		return text + "no such zone"
	}
	return text + "no such zone, only " + v.Zone
}

// cureView is what to do where the outside doesn't see what updates change.
func cureView(at place, inside, outside dns01.View) string {
	switch {
	case outside.Err != "" || inside.Err != "":
		return "see what is wrong with the answer:\ndig SOA " + at.zone
	case outside.Zone != at.zone:
		cure := "move the challenges to a zone that the outside sees:\nautocertd check --delegation ZONE"
		if len(inside.Nameservers) > 0 {
			cure += fmt.Sprintf("\nor, if these servers may be asked from outside, add to the zone above:\n%s. 300 IN NS %s.", at.zone, inside.Nameservers[0])
		}
		return cure
	}
	quoted := make([]string, len(outside.Nameservers))
	for i, ns := range outside.Nameservers {
		quoted[i] = fmt.Sprintf("%q", ns)
	}
	return fmt.Sprintf("if the servers that the outside sees get the records, wait for those, in [provider.%s]:\nnameservers = [%s]\n"+
		"or, if they can't be asked from here:\ncheck = \"primary\"", at.provider, strings.Join(quoted, ", "))
}
