package dns01

import (
	"slices"
	"testing"
	"time"

	"autocertd/internal/testbed"
)

// All records of a set have one TTL, so that ours takes the one of others that are there, and a rehearsal's is short.
func TestTTLOfOthers(t *testing.T) {
	b := startBIND(t, testbed.BINDConfig{Zones: []testbed.BINDZone{{Name: "example.test", Records: []string{
		`_acme-challenge.shared 3600 IN TXT "kept by others"`,
	}}}})
	s := onBIND(t, b, func(p *Provider) { p.TTL = 90 * time.Second })
	sets := func(host string) (list []string) {
		for _, txt := range txtAt(t, b.Addr(), "_acme-challenge."+host+".example.test") {
			list = append(list, (time.Duration(txt.Hdr.Ttl)*time.Second).String()+" "+txt.Txt[0])
		}
		slices.Sort(list)
		return list
	}
	sol := published(t, s, challenge("shared", "ours"), challenge("alone", "ours"))
	if got, want := sets("shared"), []string{"1h0m0s kept by others", "1h0m0s ours"}; !slices.Equal(got, want) {
		t.Errorf("at a name that others use: %q, want %q", got, want)
	}
	if got, want := sets("alone"), []string{"1m30s ours"}; !slices.Equal(got, want) {
		t.Errorf("at a name of our own: %q, want %q", got, want)
	}
	sol.Remove()
	eventually(t, "the record is removed", func() bool { return len(sets("shared")) == 1 })
	if got, want := sets("shared"), []string{"1h0m0s kept by others"}; !slices.Equal(got, want) {
		t.Errorf("in the end: %q, want %q", got, want)
	}
}
