package preflight

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/dnsname"
	"autocertd/internal/zones"
)

// lookups is how many names are looked up at a time.
const lookups = 16

// addResolvers is what to configure where our own servers don't see what a CA sees.
const addResolvers = "name resolvers that see what the CA sees:\n[resolvers]\npublic = [\"9.9.9.9\", \"1.1.1.1\"]"

// judgeAllCAA says whether CAA records let the CAs issue that certificates are wanted from. It is given the CAs that answer,
// and what was found for each hostname that something is to be told of.
func (cfg Config) judgeAllCAA(cas []authority, sets map[string]relevant) (list []Finding) {
	known := map[[6]string]int{} // the index of a finding
	for _, c := range cfg.Certificates {
		for _, hostname := range c.Hostnames {
			set, ok := sets[dnsname.Base(hostname)]
			if !ok {
				continue
			}
			var judged []Finding
			for _, ca := range cas {
				if slices.Contains(c.CAs, ca.name) {
					judged = append(judged, set.judge(hostname, ca))
				}
			}
			for _, f := range anotherCA(judged) {
				at, ok := known[f.Said()] // certificates share hostnames, and hostnames zones
				if !ok {
					at, known[f.Said()] = len(list), len(list)
					list = append(list, f)
				}
				list[at].Certificates = append(list[at].Certificates, c.Name)
			}
		}
	}
	return list
}

// relevant is what looking for CAA records found.
type relevant struct {
	set zones.CAASet
	err error
}

// lookUpCAA looks for the CAA records of a rehearsed name. It comes after the record was seen: a resolver that learns before
// that the hostname doesn't exist denies the challenge's name below it until the negative TTL is over (RFC 8020, RFC 8198).
func (cfg Config) lookUpCAA(ctx context.Context, r rehearsal) *relevant {
	cfg.Progress(r.subject, "CAA")
	set, err := cfg.Solver.Zones().CAA(ctx, r.base)
	if err != nil && (zones.Silent(err) && zones.Silent(r.Err) || zones.RefusesKey(err) && zones.RefusesKey(r.Err)) {
		return nil // one cause is told once
	}
	return &relevant{set, err}
}

// anotherCA turns the failures of one hostname into warnings when a CA is left that may issue.
func anotherCA(judged []Finding) []Finding {
	if !slices.ContainsFunc(judged, func(f Finding) bool { return f.Status != Failure }) {
		return judged
	}
	for i := range judged {
		if judged[i].Status == Failure {
			judged[i].Status = Warning
			judged[i].Why += "; the certificate has another CA that is tried next"
		}
	}
	return judged
}

func (r relevant) judge(hostname string, ca authority) Finding {
	if r.err == nil {
		return judgeCAA(hostname, r.set, ca)
	}
	return Finding{
		Subject: hostname,
		Check:   "CAA",
		Status:  Failure,
		Text:    r.err.Error(),
		Why:     "a CA that can't look for CAA records doesn't issue (RFC 8659, section 3)",
		Cure:    "see what is wrong with the answer:\ndig CAA " + dnsname.Base(hostname),
	}
}

// judgeCAA says whether the relevant CAA records of a hostname let a CA issue (RFC 8659, section 4) for our account and by
// our challenges (RFC 8657).
func judgeCAA(hostname string, set zones.CAASet, ca authority) Finding {
	f := Finding{Subject: hostname, Check: "CAA", Status: OK}
	if set.Domain == "" && len(ca.identities) == 0 {
		f.Text = fmt.Sprintf("CA %s names no CAA identity: it doesn't look at CAA records", ca.name)
		return f
	}
	if set.Domain == "" {
		return withoutCAA(f, set, ca)
	}
	at := "CAA at " + set.Owner
	if set.Owner != set.Domain {
		at += fmt.Sprintf(" (%s is an alias of it)", set.Domain)
	}
	if r, critical := unknownCritical(set.Records); critical {
		f.Status, f.Text = Failure, fmt.Sprintf("%s has the critical property %q, which CA %s needn't know", at, r.Tag, ca.name)
		f.Why = "a CA must not issue when it doesn't know a critical property (RFC 8659, section 4.1)"
		f.Cure = fmt.Sprintf("change its flag to 0:\n%s. 300 IN CAA 0 %s %q", set.Owner, r.Tag, r.Value)
		return f
	}
	tag := "issue"
	if hostname != dnsname.Base(hostname) && len(withTag(set.Records, "issuewild")) > 0 {
		tag = "issuewild"
	}
	grants := withTag(set.Records, tag)
	switch {
	case len(grants) == 0:
		f.Text = at + " forbids nothing here"
	case len(ca.identities) == 0:
		f.Status, f.Text = Warning, fmt.Sprintf("%s restricts who may issue, and CA %s doesn't say by which name it goes there", at, ca.name)
		f.Why = "if the CA looks for CAA records, it may find that it is forbidden to issue"
		f.Cure = fmt.Sprintf("the CA's documentation has the name; add:\n%s. 300 IN CAA 0 %s \"NAME\"", set.Owner, tag)
	default:
		reason := reject(grants, ca)
		if reason == "" {
			f.Text = fmt.Sprintf("%s allows %s", at, strings.Join(ca.identities, " or "))
			return f
		}
		f.Status, f.Text = Failure, at+" "+reason
		if tag == "issuewild" {
			f.Text += " for wildcards"
		}
		f.Why = fmt.Sprintf("CA %s would refuse to issue", ca.name)
		f.Cure = allow(set, tag, ca)
	}
	return f
}

// withoutCAA is the finding when no record was found.
func withoutCAA(f Finding, set zones.CAASet, ca authority) Finding {
	if set.Unseen == "" {
		f.Text = "no CAA records, so every CA may issue"
		return f
	}
	if set.Zone != "" {
		f.Subject = set.Zone // one finding for all of its hostnames
	}
	if ca.private { // nobody writes records for it, and resolvers on the Internet know nothing of its zones
		f.Text = fmt.Sprintf("no CAA records below %s; CA %s is a private one", set.Unseen, ca.name)
		return f
	}
	f.Status, f.Text = Warning, fmt.Sprintf("no CAA records below %s; whether it has some isn't known, since no resolver answers", set.Unseen)
	f.Why = "a CAA record there may forbid the CA to issue"
	f.Cure = addResolvers
	return f
}

// unknownCritical finds a record that a CA must understand (RFC 8659, section 4.1) and probably doesn't. Many people write
// 1 for the critical flag, and CAs take that for 128.
func unknownCritical(records []zones.CAARecord) (zones.CAARecord, bool) {
	known := []string{"issue", "issuewild", "issuemail", "iodef"}
	i := slices.IndexFunc(records, func(r zones.CAARecord) bool {
		return r.Flag&(128|1) != 0 && !slices.Contains(known, strings.ToLower(r.Tag))
	})
	if i < 0 {
		return zones.CAARecord{}, false
	}
	return records[i], true
}

func withTag(records []zones.CAARecord, tag string) (list []zones.CAARecord) {
	for _, r := range records {
		if strings.EqualFold(r.Tag, tag) {
			list = append(list, r)
		}
	}
	return list
}

// allow is the record that lets the CA issue, for our account alone once there is one. It grants beside what is granted
// already. Where the records stand above our zone, and perhaps in other hands, there is a second place for it.
func allow(set zones.CAASet, tag string, ca authority) string {
	value := ca.identities[0]
	if ca.account != "" {
		value += "; accounturi=" + ca.account
	}
	value += "; validationmethods=" + strings.Join(ca.challenges(), ",")
	cure := fmt.Sprintf("add beside it:\n%s. 300 IN CAA 0 %s %q", set.Owner, tag, value)
	if set.Zone != set.Domain && strings.HasSuffix(set.Zone, "."+set.Domain) {
		cure += fmt.Sprintf("\nor, where it counts for zone %s instead of that one:\n%s. 300 IN CAA 0 %s %q", set.Zone, set.Zone, tag, value)
	}
	return cure
}
