package config

import (
	"errors"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

func TestLimits(t *testing.T) {
	const day = 24 * time.Hour
	known := Limits{Orders: Rate{300, 3 * time.Hour}, Domain: Rate{50, 7 * day}, Set: Rate{5, 7 * day}, Failures: Rate{5, time.Hour}, FreeRenewals: true}
	raised := known
	raised.Domain = Rate{2000, 7 * day}
	without := known
	without.Orders, without.FreeRenewals = Rate{}, false
	tests := []struct {
		what, directory, table string
		want                   Limits
	}{
		{"Let's Encrypt's are known", "letsencrypt", "", known},
		{"by its URL too", "https://acme-v02.api.letsencrypt.org/directory", "", known},
		{"spelled in another way", "HTTPS://ACME-v02.api.letsencrypt.org.:443/directory", "", known},
		{"but not at another port", "https://acme-v02.api.letsencrypt.org:8443/directory", "", Limits{}},
		{"it has granted more", "letsencrypt", `certificates_per_domain = "2000 per 7d"`, raised},
		{"some don't count", "letsencrypt", "orders = \"none\"\nfree_renewals = false", without},
		{"other CAs have none", "https://ca.corp.example.com/directory", "", Limits{}},
		{"unless they are written down", "https://ca.corp.example.com/directory", `orders = "10 per 90s"`, Limits{Orders: Rate{10, 90 * time.Second}}},
	}
	for _, tt := range tests {
		text := "hostnames = [\"www.corp.example.com\"]\n[provider.bind]\ntype = \"rfc2136\"\nserver = \"ns1.corp.example.com\"\n" +
			"[ca.le]\ndirectory = \"" + tt.directory + "\"\naccept_terms = true\n[ca.le.limits]\n" + tt.table + "\n"
		unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(text)}}})
		config, err := Load("config.toml", Checks{})
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
		} else if got := config.CAs[0].Limits(); got != tt.want || got.Any() != (tt.want != Limits{}) {
			t.Errorf("%s: %+v, want %+v", tt.what, got, tt.want)
		}
	}
}

// TestRateIsReadAsWritten: what String writes, UnmarshalText reads.
func TestRateIsReadAsWritten(t *testing.T) {
	for _, text := range []string{"50 per 7d", "300 per 3h", "1 per 90m", "10 per 2s", "none", "7 per 1m30s"} {
		var r, again Rate
		if err := errors.Join(r.UnmarshalText([]byte(text)), again.UnmarshalText([]byte(r.String()))); err != nil || r != again {
			t.Errorf("%s is read as %+v, written as %s and read as %+v (%v)", text, r, r, again, err)
		}
	}
	if each := (Rate{50, 7 * 24 * time.Hour}).Each(); each != 201*time.Minute+36*time.Second {
		t.Errorf("one more after %s", each)
	}
}
