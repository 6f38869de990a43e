// Package knownca holds the facts that are known of public CAs before they are asked: directories, limits, profiles. Each
// fact stands once, in the table of All. Facts that an administrator writes down instead, and those that a CA states itself,
// are left to the packages that use the table.
package knownca

import (
	"slices"
	"time"
)

// A CA is a row of the table.
type CA struct {
	Name      string // the short name that a configuration may use
	Directory string // the URL of the directory (RFC 8555, section 7.1.1)
	Staging   string // the short name of the CA to rehearse with, or ""
	Ended     bool   // it issues no more: only migrations meet its accounts
	Limits    Limits // of one account
	Profiles  []Profile
}

// A Profile is a kind of certificates that a CA offers. The first of a CA's profiles is its default.
type Profile struct {
	Name      string
	MostNames int // hostnames in one certificate
	Lifetimes []Lifetime
}

// A Lifetime is how long certificates live that are issued from a moment on.
type Lifetime struct {
	From     time.Time
	Lifetime time.Duration
}

// The short names that product code asks for.
const (
	LetsEncrypt        = "letsencrypt"
	LetsEncryptStaging = "letsencrypt-staging"
	ZeroSSL            = "zerossl"
	Google             = "google"
)

const (
	hour = time.Hour
	day  = 24 * hour
	week = 7 * day
)

// All returns the table, as of late in 2026.
func All() []CA {
	// https://letsencrypt.org/docs/profiles/, https://letsencrypt.org/docs/rate-limits/, https://letsencrypt.org/docs/staging-environment/
	profiles := []Profile{
		{"classic", 100, []Lifetime{
			{time.Time{}, 90 * day},
			{time.Date(2027, time.February, 10, 0, 0, 0, 0, time.UTC), 64 * day},
			{time.Date(2028, time.February, 16, 0, 0, 0, 0, time.UTC), 45 * day},
		}},
		{"tlsserver", 25, []Lifetime{{time.Time{}, 45 * day}}},
		{"shortlived", 25, []Lifetime{{time.Time{}, 160 * hour}}},
	}
	return []CA{
		{
			Name:      LetsEncrypt,
			Directory: "https://acme-v02.api.letsencrypt.org/directory",
			Staging:   LetsEncryptStaging,
			Limits: Limits{
				Orders:       Rate{300, 3 * hour},
				Domain:       Rate{50, week},
				Set:          Rate{5, week},
				Failures:     Rate{5, hour},
				FreeRenewals: true,
			},
			Profiles: profiles,
		},
		{
			Name:      LetsEncryptStaging,
			Directory: "https://acme-staging-v02.api.letsencrypt.org/directory",
			Limits: Limits{
				Orders:       Rate{1500, 3 * hour},
				Domain:       Rate{30_000, week},
				Set:          Rate{30_000, week},
				Failures:     Rate{200, hour},
				FreeRenewals: true,
			},
			Profiles: profiles,
		},
		{Name: ZeroSSL, Directory: "https://acme.zerossl.com/v2/DV90"},
		{Name: Google, Directory: "https://dv.acme-v02.api.pki.goog/directory"},
		{Name: "buypass", Directory: "https://api.buypass.com/acme/directory", Ended: true},
	}
}

// Names returns the short names of the CAs that issue, sorted.
func Names() (names []string) {
	for _, ca := range All() {
		if !ca.Ended {
			names = append(names, ca.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Directory returns the URL of the CA that issues under a short name, "" when there is none.
func Directory(name string) string {
	for _, ca := range All() {
		if ca.Name == name && !ca.Ended {
			return ca.Directory
		}
	}
	return ""
}

// At returns the CA with a directory, the zero CA when it isn't known.
func At(directory string) CA {
	for _, ca := range All() {
		if ca.Directory == directory {
			return ca
		}
	}
	return CA{}
}

// Profile returns a profile by its name, the default one for "", and the zero Profile when it isn't known.
func (ca CA) Profile(name string) Profile {
	for i, p := range ca.Profiles {
		if p.Name == name || name == "" && i == 0 {
			return p
		}
	}
	return Profile{}
}

// Lifetime returns how long certificates live that are issued at a moment, 0 when it isn't known.
func (p Profile) Lifetime(at time.Time) (lifetime time.Duration) {
	for _, l := range p.Lifetimes {
		if !at.Before(l.From) {
			lifetime = l.Lifetime
		}
	}
	return lifetime
}
