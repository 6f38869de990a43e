package preflight

import (
	"strings"
	"testing"

	"autocertd/internal/zones"
)

const ourAccount = "https://ca.invalid/acct/1"

// caaSet is a set at corp.example.test, the apex of our zone, from records as zone files have them but without quotes.
func caaSet(records ...string) zones.CAASet {
	set := zones.CAASet{Domain: "corp.example.test", Owner: "corp.example.test", Zone: "corp.example.test"}
	for _, r := range records {
		flag, rest, _ := strings.Cut(r, " ")
		tag, value, _ := strings.Cut(rest, " ")
		set.Records = append(set.Records, zones.CAARecord{Flag: map[string]uint8{"0": 0, "1": 1, "128": 128}[flag], Tag: tag, Value: value})
	}
	return set
}

// above is the set at the parent of our zone.
func above(set zones.CAASet) zones.CAASet {
	set.Domain, set.Owner = "example.test", "example.test"
	return set
}

func TestJudgeCAA(t *testing.T) {
	ours := authority{name: "le", identities: []string{"ca.invalid", "ca.example"}, account: ourAccount}
	fresh, silent, private, both := ours, ours, ours, ours
	both.methods = []string{"dns-account-01", "dns-01"}
	private.private = true
	fresh.account, silent.identities = "", nil
	const line = `corp.example.test. 300 IN CAA 0 issue "ca.invalid; accounturi=` + ourAccount + `; validationmethods=dns-01"`
	const wildLine = `corp.example.test. 300 IN CAA 0 issuewild "ca.invalid; accounturi=` + ourAccount + `; validationmethods=dns-01"`
	const freshLine = `corp.example.test. 300 IN CAA 0 issue "ca.invalid; validationmethods=dns-01"`
	alias := caaSet("0 issue other.invalid")
	alias.Domain = "www.corp.example.test"

	tests := []struct {
		name       string
		set        zones.CAASet
		ca         authority
		wildcard   bool
		status     Status
		text, cure string // cure: one line of it
	}{
		{name: "no records allow everybody", set: zones.CAASet{}, ca: ours, status: OK, text: "no CAA records, so every CA may issue"},
		{name: "our CA is allowed", set: caaSet("0 issue ca.invalid"), ca: ours, status: OK, text: "CAA at corp.example.test allows ca.invalid or ca.example"},
		{name: "our CA by its other name", set: caaSet("0 issue CA.Example."), ca: ours, status: OK, text: "CAA at corp.example.test allows ca.invalid or ca.example"},
		{name: "our CA beside another one", set: caaSet("0 issue other.invalid", "0 issue ca.invalid"), ca: ours, status: OK},
		{name: "our CA beside a ban for all", set: caaSet("0 issue ;", "0 issue ca.invalid"), ca: ours, status: OK},
		{name: "another CA alone", set: caaSet("0 issue other.invalid; foo=bar"), ca: ours, status: Failure,
			text: "CAA at corp.example.test allows other.invalid, not ca.invalid or ca.example", cure: line},
		{name: "nobody", set: caaSet("0 issue ;"), ca: ours, status: Failure, text: "CAA at corp.example.test forbids every CA to issue", cure: line},
		{name: "nobody, by an empty value", set: caaSet("0 issue "), ca: ours, status: Failure, text: "CAA at corp.example.test forbids every CA to issue", cure: line},
		{name: "what is malformed allows nobody", set: caaSet("0 issue ca.invalid; dns-01"), ca: ours, status: Failure, text: "CAA at corp.example.test forbids every CA to issue", cure: line},
		{name: "two names in one value allow nobody", set: caaSet("0 issue ca.invalid ca.example"), ca: ours, status: Failure, cure: line},
		{name: "capitals in a tag", set: caaSet("0 Issue other.invalid"), ca: ours, status: Failure, cure: line},

		{name: "our account", set: caaSet("0 issue ca.invalid; accounturi=" + ourAccount), ca: ours, status: OK},
		{name: "our account in spaces", set: caaSet("0 issue  ca.invalid ;  accounturi = " + ourAccount + " ; "), ca: ours, status: OK},
		{name: "another account", set: caaSet("0 issue ca.invalid; accounturi=" + ourAccount + "0"), ca: ours, status: Failure,
			text: "CAA at corp.example.test allows ca.invalid only for account " + ourAccount + "0, not for ours, which is " + ourAccount, cure: line},
		{name: "two accounts in one value fit nobody", set: caaSet("0 issue ca.invalid; accounturi=" + ourAccount + "; accounturi=" + ourAccount), ca: ours, status: Failure, cure: line},
		{name: "another account, and in a second value ours", set: caaSet("0 issue ca.invalid; accounturi=x", "0 issue ca.invalid; accounturi="+ourAccount), ca: ours, status: OK},
		{name: "an account, and we have none yet", set: caaSet("0 issue ca.invalid; accounturi=" + ourAccount), ca: fresh, status: Failure,
			text: "CAA at corp.example.test allows ca.invalid only for account " + ourAccount + ", and there is no account yet", cure: freshLine},
		{name: "an empty account isn't that which we don't have yet", set: caaSet("0 issue ca.invalid; accounturi="), ca: fresh, status: Failure, cure: freshLine},
		{name: "any account, and we have none yet", set: caaSet("0 issue ca.invalid"), ca: fresh, status: OK},

		{name: "our method", set: caaSet("0 issue ca.invalid; validationmethods=dns-01"), ca: ours, status: OK},
		{name: "our method among others", set: caaSet("0 issue ca.invalid; validationmethods=http-01,dns-01"), ca: ours, status: OK},
		{name: "another method", set: caaSet("0 issue ca.invalid; validationmethods=http-01"), ca: ours, status: Failure,
			text: "CAA at corp.example.test allows ca.invalid only by http-01, not by dns-01", cure: line},
		{name: "our account with another method", set: caaSet("0 issue ca.invalid; accounturi=" + ourAccount + "; validationmethods=http-01"), ca: ours, status: Failure, cure: line},

		{name: "both methods", set: caaSet("0 issue ca.invalid; validationmethods=dns-01,dns-account-01"), ca: both, status: OK},
		{name: "both methods, each in a value of its own", set: caaSet("0 issue ca.invalid; validationmethods=dns-01", "0 issue ca.invalid; validationmethods=dns-account-01"), ca: both, status: OK},
		{name: "one of both methods", set: caaSet("0 issue ca.invalid; validationmethods=dns-01"), ca: both, status: Failure,
			text: "CAA at corp.example.test allows ca.invalid only by dns-01, not by dns-account-01",
			cure: `corp.example.test. 300 IN CAA 0 issue "ca.invalid; accounturi=` + ourAccount + `; validationmethods=dns-account-01,dns-01"`},

		{name: "a wildcard needs what hosts need", set: caaSet("0 issue other.invalid"), ca: ours, wildcard: true, status: Failure, cure: line},
		{name: "issuewild replaces issue for wildcards", set: caaSet("0 issue other.invalid", "0 issuewild ca.invalid"), ca: ours, wildcard: true, status: OK},
		{name: "issuewild forbids wildcards alone", set: caaSet("0 issue ca.invalid", "0 issuewild ;"), ca: ours, wildcard: true, status: Failure,
			text: "CAA at corp.example.test forbids every CA to issue for wildcards", cure: wildLine},
		{name: "issuewild is nothing to hosts", set: caaSet("0 issue ca.invalid", "0 issuewild ;"), ca: ours, status: OK},
		{name: "issuewild alone leaves hosts free", set: caaSet("0 issuewild ;"), ca: ours, status: OK, text: "CAA at corp.example.test forbids nothing here"},
		{name: "iodef alone forbids nothing", set: caaSet("0 iodef mailto:a@b"), ca: ours, status: OK, text: "CAA at corp.example.test forbids nothing here"},

		{name: "an unknown property", set: caaSet("0 issue ca.invalid", "0 future x"), ca: ours, status: OK},
		{name: "an unknown critical property", set: caaSet("0 issue ca.invalid", "128 future x"), ca: ours, status: Failure,
			text: `CAA at corp.example.test has the critical property "future", which CA le needn't know`, cure: `corp.example.test. 300 IN CAA 0 future "x"`},
		{name: "a critical property with the popular flag", set: caaSet("0 issue ca.invalid", "1 future x"), ca: ours, status: Failure, cure: `corp.example.test. 300 IN CAA 0 future "x"`},
		{name: "a known critical property", set: caaSet("128 issue ca.invalid", "128 iodef mailto:a@b"), ca: ours, status: OK},

		{name: "above our zone", set: above(caaSet("0 issue other.invalid")), ca: ours, status: Failure, text: "CAA at example.test allows other.invalid, not ca.invalid or ca.example",
			cure: `example.test. 300 IN CAA 0 issue "ca.invalid; accounturi=` + ourAccount + `; validationmethods=dns-01"`},
		{name: "above our zone, there is a second place", set: above(caaSet("0 issue other.invalid")), ca: ours, status: Failure, cure: line},
		{name: "beside an alias there can be no record", set: alias, ca: ours, status: Failure,
			text: "CAA at corp.example.test (www.corp.example.test is an alias of it) allows other.invalid, not ca.invalid or ca.example", cure: line},
		{name: "a CA without a name, and nothing forbidden", set: zones.CAASet{}, ca: silent, status: OK},
		{name: "a CA without a name", set: caaSet("0 issue other.invalid"), ca: silent, status: Warning,
			text: "CAA at corp.example.test restricts who may issue, and CA le doesn't say by which name it goes there", cure: `corp.example.test. 300 IN CAA 0 issue "NAME"`},
		{name: "out of sight of a private CA", set: zones.CAASet{Unseen: "example.test", Zone: "corp.example.test"}, ca: private, status: OK,
			text: "no CAA records below example.test; CA le is a private one"},
		{name: "a private CA that is forbidden", set: caaSet("0 issue other.invalid"), ca: private, status: Failure, cure: line},
		{name: "out of sight", set: zones.CAASet{Unseen: "example.test", Zone: "corp.example.test"}, ca: ours, status: Warning,
			text: "no CAA records below example.test; whether it has some isn't known, since no resolver answers", cure: `public = ["9.9.9.9", "1.1.1.1"]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hostname := "host.corp.example.test"
			if tt.wildcard {
				hostname = "*.corp.example.test"
			}
			f := judgeCAA(hostname, tt.set, tt.ca)
			if f.Status != tt.status || tt.text != "" && f.Text != tt.text {
				t.Errorf("%s: %s\nwant %s: %s", f.Status, f.Text, tt.status, tt.text)
			}
			if (f.Status == OK) != (f.Why == "" && f.Cure == "") {
				t.Errorf("%s, because %q, cure %q", f.Status, f.Why, f.Cure)
			}
			if !hasLine(f.Cure, tt.cure) {
				t.Errorf("cure:\n%s\nhas no line\n%s", f.Cure, tt.cure)
			}
		})
	}
}

func hasLine(text, line string) bool {
	return line == "" || strings.Contains("\n"+text+"\n", "\n"+line+"\n")
}

func TestAnotherCA(t *testing.T) {
	no, yes := Finding{Status: Failure, Why: "it is forbidden"}, Finding{Status: OK}
	got := anotherCA([]Finding{no, yes})
	if got[0].Status != Warning || !strings.Contains(got[0].Why, "tried next") || got[1].Said() != yes.Said() {
		t.Errorf("one of two CAs may issue: %+v", got)
	}
	if got := anotherCA([]Finding{no, no}); got[0].Said() != no.Said() || got[1].Said() != no.Said() {
		t.Errorf("none of two CAs may issue: %+v", got)
	}
}
