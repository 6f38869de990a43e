package preflight

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/dns01"
	"autocertd/internal/zones"
)

// aliasesShown is how many names of one zone that are aliases are shown, each with its chain.
const aliasesShown = 20

// rehearsal is what became of one challenge.
type rehearsal struct {
	proof
	dns01.Rehearsal
	skipped bool           // servers of its zone are late already: it wasn't published
	glances []zones.Glance // whether others see the record, for one name of each zone
	caa     *relevant      // nil: there is nothing to tell
}

func (r rehearsal) place() place { return place{r.Target.Provider, r.Target.Zone} }

// findings are those of the name itself; what its servers did well is told once for the zone. The known zones are those of all names.
func (r rehearsal) findings(known []string) (list []Finding) {
	if r.Target.Wildcard != "" {
		list = append(list, Finding{Subject: r.subject, Check: "alias", Status: OK,
			Text: fmt.Sprintf("a wildcard CNAME to %s answers for the challenge name; it isn't followed, and a record of the name takes its place", r.Target.Wildcard)})
	}
	f := Finding{Subject: r.subject, Check: "update", Status: OK,
		Text: fmt.Sprintf("provider %s writes into zone %s", r.Target.Provider, r.Target.Zone)}
	outage := zones.Outage(r.Err)
	switch {
	case outage != nil && r.Step != "wait": // the same words for all names
		f.Check, f.Status, f.Why = "server", Failure, "without the server no record can be written"
		f.say(outage)
	case r.ByHand:
		f.Text = fmt.Sprintf("a person adds the record to zone %s: provider %s is manual", r.Target.Zone, r.Target.Provider)
	case r.skipped:
		f.Status, f.Text = Warning, fmt.Sprintf("not tried, since servers of zone %s are late already", r.Target.Zone)
		f.Why, f.Cure = "an update that is refused would be seen only later", "cure the servers first, and check again"
	case r.Step == "locate":
		f.Check = "zone"
		f.Status, f.Why = Failure, "the record has no place to be written to"
		f.Text, f.Cure = unlocated(r, known)
	case r.Step == "wait":
		list = append(list, f, judgeLate(r))
		return list
	case unwritten(r.Err) != "": // the same words for all names
		f.Check, f.Status, f.Why = "journal", Failure, "without the record the CA doesn't issue"
		f.Text, f.Cure = "nothing was sent, since it can't be noted on disk: "+storageTrouble(r.Err).Error(), "see why:\n"+unwritten(r.Err)
	case r.Step != "":
		f.Status, f.Why = Failure, "without the record the CA doesn't issue"
		f.say(causeOf(r.Err))
	}
	return append(list, f)
}

// storageTrouble returns why nothing can be written where we keep our notes; nil when an error is another.
func storageTrouble(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, full) {
			return full
		}
	}
	return nil
}

// unwritten is the line that shows why nothing can be written there; "" when an error is another.
func unwritten(err error) string {
	path, ok := errors.AsType[*fs.PathError](err)
	if !ok || storageTrouble(err) == nil {
		return ""
	}
	folder := filepath.Dir(filepath.Dir(path.Path)) // of all slots of the journal
	return fmt.Sprintf("df -h %[1]s; df -i %[1]s; findmnt -T %[1]s", folder)
}

// unlocated says why no zone was found, and what may help.
func unlocated(r rehearsal, known []string) (text, cure string) {
	look := "see what DNS says:"
	for _, name := range slices.Compact(slices.Sorted(slices.Values(r.Target.Chain))) {
		look += "\ndig CNAME " + name
	}
	meant, zone := zones.Meant(r.name, known)
	none, ok := errors.AsType[*zones.NoProviderError](r.Err)
	switch {
	case meant != "" && len(r.Target.Chain) == 1 && (!ok || none.Zone == "" && !none.Delegated):
		return fmt.Sprintf("no zone for %s is found; did you mean %s, in zone %s?", r.name, meant, zone), "correct the hostname:\n" + fmt.Sprintf("%q", meant)
	case !ok:
		if text = r.Err.Error(); len(known) > 0 {
			text += "; other names are in " + listFew(known)
		}
		return text, look + "\ndig SOA " + r.Target.Name()
	}
	text = none.Error()
	wanted := fmt.Sprintf("zones = [%q]", cmp.Or(none.Zone, "ZONE"))
	switch {
	case none.Delegated:
		return text, "add a provider for those servers:\n[provider.NAME]\n" + wanted
	case none.Zone == "" && len(r.Target.Chain) > 1:
		return text, "correct the alias, if it leads nowhere; " + look
	}
	cure = "add the zone to those of the [provider.…] that can write there:\n" + wanted
	if none.Unasked != nil {
		cure += "\nor, if a CNAME leads from it to a zone that is served, name resolvers that know it:\n[resolvers]\npublic = [\"ADDRESS\"]"
	}
	return text, cure
}

// listFew names a few zones or servers.
func listFew(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// causeOf returns why something failed for one record, without its name: that is the subject of the finding.
func causeOf(err error) error {
	if group, ok := err.(*cure.Group); ok {
		return group.Cause
	}
	return err
}

// judgeAliases shows where aliases lead: each, or one of many.
func judgeAliases(at place, names []rehearsal) (list []Finding) {
	for _, r := range names {
		if len(r.Target.Chain) > 1 {
			list = append(list, Finding{Subject: r.subject, Check: "alias", Status: OK, Text: r.Target.String()})
		}
	}
	if n := len(list); n > aliasesShown {
		return []Finding{{Subject: at.zone, Check: "alias", Status: OK, Text: fmt.Sprintf("%d names lead here, such as %s", n, list[0].Text)}}
	}
	return list
}

// judgeLate says which servers don't have the record of a name.
func judgeLate(r rehearsal) Finding {
	f := Finding{Subject: r.subject, Check: "record", Status: Failure,
		Why: "the CA asks from several places, so every server must have the record"}
	f.say(r.Err)
	if len(r.Sightings) == 0 {
		return f // the servers themselves weren't found
	}
	var late, have []string
	for _, s := range r.Sightings {
		if s.Answer == "" {
			have = append(have, fmt.Sprintf("%q", address(s.Server)))
		} else {
			late = append(late, s.Server+" "+s.Answer)
		}
	}
	n := len(late)
	if n > lateShown {
		late = append(late[:lateShown:lateShown], fmt.Sprintf("and %d more", n-lateShown))
	}
	f.Text = fmt.Sprintf("%d of %d servers lack the record: %s", n, len(r.Sightings), strings.Join(late, "; "))
	f.Cure = "see whether it runs, is told of changes (NOTIFY) and may transfer the zone; there:\n" + retransfer(r.Target.Zone)
	if walled(r.Sightings) {
		f.Cure = fmt.Sprintf("none of them can be asked from here; see whether a firewall is in between, or let resolvers stand for them, in [provider.%s]:\n"+
			"check = \"resolvers\"\nwith the addresses of some that may be asked:\n[resolvers]\npublic = [\"ADDRESS\"]", r.Target.Provider)
	}
	if len(have) > 0 && len(have) <= lateShown {
		f.Cure += fmt.Sprintf("\nor, when the CA never asks it, in [provider.%s]:\nnameservers = [%s]", r.Target.Provider, strings.Join(have, ", "))
	}
	return f
}

// lateShown is how many servers that lack the record are named.
const lateShown = 5

// walled reports whether no server said anything at all, by what is said of them.
func walled(list []zones.Sighting) bool {
	return !slices.ContainsFunc(list, func(s zones.Sighting) bool { return !s.Silent })
}

// retransfer is what to do on a secondary that lags behind.
func retransfer(zone string) string { return "systemctl status named\nrndc retransfer " + zone }

// address is that of a server, as the configuration wants it.
func address(server string) string {
	if i := strings.LastIndex(server, " ("); i >= 0 {
		server = strings.TrimSuffix(server[i+2:], ")")
	}
	return strings.TrimSuffix(server, ":53")
}

// judgeServers tells how long each server took at most, over all names of a zone. Those that may be late and were are
// warned of.
func judgeServers(at place, names []rehearsal) (list []Finding) {
	var order []string
	after, tolerated, passed := map[string]time.Duration{}, map[string]string{}, map[string]bool{}
	well := false
	for _, r := range names {
		if r.Step != "" || r.skipped || r.ByHand {
			continue
		}
		well = true
		for _, s := range r.Sightings {
			if _, known := after[s.Server]; !known {
				order = append(order, s.Server)
			}
			after[s.Server] = max(after[s.Server], s.After)
			if s.Walled {
				passed[s.Server] = true
			} else if s.Answer != "" {
				tolerated[s.Server] = s.Answer
			}
		}
	}
	var have []string
	for _, server := range order {
		if passed[server] {
			continue
		}
		if answer, late := tolerated[server]; late {
			list = append(list, Finding{
				Subject: at.zone,
				Check:   "servers",
				Status:  Warning,
				Text:    fmt.Sprintf("%s %s (asked for %s); min_nameservers does without it", server, answer, round(after[server])),
				Why:     "a CA that asks this server doesn't find the record",
				Cure:    "on that server:\n" + retransfer(at.zone),
			})
			continue
		}
		have = append(have, fmt.Sprintf("%s within %s", server, max(round(after[server]), time.Millisecond)))
	}
	f := Finding{Subject: at.zone, Check: "servers", Status: OK, Text: "the record is at " + listFew(have)}
	if len(order) == 0 {
		f.Text = `no server is asked for the record (check = "none")`
	}
	if len(passed) > 0 {
		f.Text += "; the zone's own servers can't be asked from here, so that resolvers stand for them"
	}
	if well && (len(have) > 0 || len(order) == 0) {
		list = append(list, f)
	}
	return list
}
