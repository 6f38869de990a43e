//go:build linux

package preflight

import (
	"errors"
	"reflect"
	"testing"

	"autocertd/internal/cure"
	"autocertd/internal/zones"
)

func TestJudgeDNSSEC(t *testing.T) {
	says := func(validity zones.Validity, reasons ...string) zones.Verdict {
		return zones.Verdict{Resolver: "192.0.2.1:53", Zone: "corp.test", Validity: validity, Reasons: reasons}
	}
	second, signed, elsewhere := says(zones.Secure), says(zones.NotValidating), says(zones.Secure)
	second.Resolver, signed.Signed, elsewhere.Zone = "192.0.2.2:53", true, "test"
	tests := []struct {
		name     string
		verdicts []zones.Verdict
		want     []string // nil: no finding
	}{
		{"no resolvers", nil, nil},
		{"signed", []zones.Verdict{says(zones.Secure)}, []string{"ok: signed, and validated by 192.0.2.1:53 | "}},
		{"signed, say two", []zones.Verdict{says(zones.Secure), second}, []string{"ok: signed, and validated by 192.0.2.1:53, 192.0.2.2:53 | "}},
		{"not signed", []zones.Verdict{says(zones.Insecure)}, []string{"ok: not signed, says 192.0.2.1:53 | "}},
		{"not signed, and not looked at", []zones.Verdict{says(zones.NotValidating)}, []string{"ok: not signed; 192.0.2.1:53 doesn't validate | "}},
		{"signed, and not looked at", []zones.Verdict{signed}, []string{"warning: signed, but resolver 192.0.2.1:53 doesn't look at signatures | ", " | public = "}},
		{"the zone isn't there, which the views tell", []zones.Verdict{elsewhere}, nil},
		{"bogus, and the resolver says why", []zones.Verdict{says(zones.Bogus, "Signature Expired", "Other")},
			[]string{"failure: resolver 192.0.2.1:53 finds the signatures of corp.test bogus: Signature Expired; Other | ",
				" | delv @192.0.2.1 +rtrace +vtrace SOA corp.test | rndc dnssec -status corp.test"}},
		{"bogus, and it doesn't", []zones.Verdict{says(zones.Bogus)},
			[]string{"failure: resolver 192.0.2.1:53 finds the signatures of corp.test bogus | ", " | delv @192.0.2.1 +rtrace +vtrace SOA corp.test | "}},
		{"no answer", []zones.Verdict{says(zones.Unanswered, "it answers REFUSED")}, []string{"warning: resolver 192.0.2.1:53 has no answer: it answers REFUSED | ", " | dig @192.0.2.1 SOA corp.test"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			expected{"corp.test", "DNSSEC", tt.want}.in(t, judgeDNSSEC(probe{subject: "corp.test", name: "corp.test", zone: true}, tt.verdicts))
		})
	}
	if list := judgeDNSSEC(probe{subject: "corp.test", name: "corp.test", zone: true}, []zones.Verdict{second, says(zones.Bogus)}); len(list) != 2 || list[0].Status != Failure {
		t.Errorf("bogus for one of two: %+v", list)
	}
}

// One alias is asked for among hosts beside each other, and each zone once.
func TestProbes(t *testing.T) {
	host := func(name, zone string, chain ...string) rehearsal {
		r := rehearsal{proof: proof{name, name, "_acme-challenge." + name, []string{name[:1]}}}
		r.Target = zones.Target{Chain: append([]string{"_acme-challenge." + name}, chain...), Zone: zone}
		return r
	}
	got := probesFor([]rehearsal{
		host("a.corp.test", "corp.test"), host("b.corp.test", "corp.test"),
		host("c.corp.test", "acme.test", "c.acme.test"), host("d.corp.test", "acme.test", "d.acme.test"), host("e.lab.test", "acme.test", "e.acme.test"),
		host("f.lost.test", ""),
	})
	want := []probe{{"corp.test", "corp.test", true, []string{"a", "b"}}, {"acme.test", "acme.test", true, []string{"c", "d", "e"}},
		{"c.corp.test", "_acme-challenge.c.corp.test", false, []string{"c", "d"}}, {"e.lab.test", "_acme-challenge.e.lab.test", false, []string{"e"}}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// Many aliases are shown by one.
func TestManyAliases(t *testing.T) {
	names := make([]rehearsal, aliasesShown+1)
	for i := range names {
		names[i].Target = zones.Target{Chain: []string{"a", "b"}, Zone: "acme.test"}
	}
	if list := judgeAliases(place{"bind", "acme.test"}, names[1:]); len(list) != aliasesShown {
		t.Errorf("%d of %d are shown", len(list), aliasesShown)
	}
	expected{"acme.test", "alias", []string{"ok: 21 names lead here, such as a -> b"}}.in(t, judgeAliases(place{"bind", "acme.test"}, names))
}

func TestResolverForDig(t *testing.T) {
	for resolver, want := range map[string]string{"192.0.2.1:53": "@192.0.2.1", "192.0.2.1:5353": "@192.0.2.1 -p 5353", "[2001:db8::1]:53": "@2001:db8::1"} {
		if got := at(resolver); got != want {
			t.Errorf("%s: %s, want %s", resolver, got, want)
		}
	}
}

// TestSay shows that a finding has problem and cure of an error apart, whatever is in their texts.
func TestSay(t *testing.T) {
	for _, row := range []struct {
		err        error
		text, cure string
	}{
		{cure.New("wrong secret", "copy the key; then reload"), "wrong secret", "copy the key; then reload"},
		{errors.New("no cure is known"), "no cure is known", ""},
		{cure.New("a failed; next, b failed", "wait"), "a failed; next, b failed", "wait"},
		{causeOf(cure.For("publishing", "_acme-challenge.a.test", cure.New("refused; by policy", "allow it"))), "refused; by policy", "allow it"},
	} {
		var f Finding
		if f.say(row.err); f.Text != row.text || f.Cure != row.cure {
			t.Errorf("%v: %q and %q", row.err, f.Text, f.Cure)
		}
	}
}
