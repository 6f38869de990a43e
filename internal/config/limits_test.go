package config

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"autocertd/internal/knownca"
)

func TestLimits(t *testing.T) {
	const day = 24 * time.Hour
	known := knownca.Limits{Orders: knownca.Rate{Count: 300, Per: 3 * time.Hour}, Domain: knownca.Rate{Count: 50, Per: 7 * day}, Set: knownca.Rate{Count: 5, Per: 7 * day}, Failures: knownca.Rate{Count: 5, Per: time.Hour}, FreeRenewals: true}
	raised := known
	raised.Domain = knownca.Rate{Count: 2000, Per: 7 * day}
	without := known
	without.Orders, without.FreeRenewals = knownca.Rate{}, false
	tests := []struct {
		what, directory, table string
		want                   knownca.Limits
	}{
		{"Let's Encrypt's are known", "letsencrypt", "", known},
		{"by its URL too", "https://acme-v02.api.letsencrypt.org/directory", "", known},
		{"spelled in another way", "HTTPS://ACME-v02.api.letsencrypt.org.:443/directory", "", known},
		{"but not at another port", "https://acme-v02.api.letsencrypt.org:8443/directory", "", knownca.Limits{}},
		{"it has granted more", "letsencrypt", `certificates_per_domain = "2000 per 7d"`, raised},
		{"some don't count", "letsencrypt", "orders = \"none\"\nfree_renewals = false", without},
		{"other CAs have none", "https://ca.corp.example.com/directory", "", knownca.Limits{}},
		{"unless they are written down", "https://ca.corp.example.com/directory", `orders = "10 per 90s"`, knownca.Limits{Orders: knownca.Rate{Count: 10, Per: 90 * time.Second}}},
	}
	for _, tt := range tests {
		text := "hostnames = [\"www.corp.example.com\"]\n[provider.bind]\ntype = \"rfc2136\"\nserver = \"ns1.corp.example.com\"\n" +
			"[ca.le]\ndirectory = \"" + tt.directory + "\"\naccept_terms = true\n[ca.le.limits]\n" + tt.table + "\n"
		unpack(t, &txtar.Archive{Files: []txtar.File{{Name: "config.toml", Data: []byte(text)}}})
		config, err := Load("config.toml", Checks{})
		if err != nil {
			t.Errorf("%s: %v", tt.what, err)
		} else if got := config.CAs[0].Limits(); got != tt.want || got.Any() != (tt.want != knownca.Limits{}) {
			t.Errorf("%s: %+v, want %+v", tt.what, got, tt.want)
		}
	}
}
