package preflight

import (
	"strings"
	"testing"

	"autocertd/internal/dnsname"
	"autocertd/internal/zones"
)

const challengeZone = "acme.test"

func TestAliasFor(t *testing.T) {
	tests := []struct {
		name         string
		chain        []string
		line, target string
		note         string
	}{
		{name: "a name becomes an alias", chain: []string{"_acme-challenge.www.example.com"},
			line: "_acme-challenge.www.example.com. 300 IN CNAME www.example.com.acme.test.", target: "www.example.com.acme.test"},
		{name: "a name that is delegated already stays", chain: []string{"_acme-challenge.www.example.com", "x.hop.test", "www.acme.test"},
			target: "www.acme.test", note: "is delegated already, to www.acme.test"},
		{name: "an alias to elsewhere is replaced", chain: []string{"_acme-challenge.www.example.com", "x.hop.test", "www.other.test"},
			line: "_acme-challenge.www.example.com. 300 IN CNAME www.example.com.acme.test.", target: "www.example.com.acme.test",
			note: "is an alias of x.hop.test now; its CNAME must go"},
		{name: "a host of the challenge zone needs no alias", chain: []string{"_acme-challenge.www.acme.test"},
			target: "_acme-challenge.www.acme.test", note: "lies in the challenge zone"},
		{name: "a zone that ends alike is another", chain: []string{"_acme-challenge.www.not-acme.test"},
			line: "_acme-challenge.www.not-acme.test. 300 IN CNAME www.not-acme.test.acme.test.", target: "www.not-acme.test.acme.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := aliasFor(zones.Place{Target: zones.Target{Chain: tt.chain}}, challengeZone)
			if got.Line != tt.line || got.Target != tt.target || got.Note != tt.note {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A hostname and its challenge zone together may be longer than a DNS name. The target is then a short one, of its own.
func TestLongTargets(t *testing.T) {
	longZone := strings.Repeat("z.", 50) + "test" // 104 characters
	fits, tooLong := strings.Repeat("a.", 72)+"test", strings.Repeat("a.", 72)+"testx"
	if got := target(fits, longZone); got != fits+"."+longZone || len(got) != longestName {
		t.Errorf("what just fits becomes %s", got)
	}
	first, second := target(tooLong, longZone), target("b"+tooLong[1:], longZone)
	if first == second || len(first) > longestName || !dnsname.In(first, longZone) || strings.Count(first, ".") != strings.Count(longZone, ".")+1 {
		t.Errorf("names that don't fit become %s and %s", first, second)
	}
}
