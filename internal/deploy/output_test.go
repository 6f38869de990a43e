package deploy

import "testing"

func TestMatches(t *testing.T) {
	o := Output{Match: []string{"*.corp.example.com", "wild?", "[ab]"}}
	for name, want := range map[string]bool{"www.corp.example.com": true, "a.b.corp.example.com": true, "corp.example.com": false,
		"wild1": true, "wild": false, "a": true, "c": false} {
		if o.matches(name) != want {
			t.Errorf("%s: got %v", name, !want)
		}
	}
	if (Output{}).matches("a") {
		t.Error("an output without patterns matches")
	}
}
