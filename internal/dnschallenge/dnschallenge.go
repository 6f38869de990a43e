// Package dnschallenge knows the ACME challenges that are answered in DNS: the name and the value of the TXT record, and how
// long it stands. Who publishes the record, and when, is for others.
package dnschallenge

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"strings"
)

// Type names a kind of challenge, as ACME does.
type Type string

// The types that can be answered, the usual one first.
const (
	DNS01 Type = "dns-01" // RFC 8555 section 8.4
	// DNSAccount01 has a name of its own for each account, so that several accounts can prove one hostname, each by an alias
	// (CNAME) of its own. It is experimental: draft-ietf-acme-dns-account-label, as Pebble 2.10 speaks it.
	DNSAccount01 Type = "dns-account-01"
)

// Types lists them.
func Types() []Type { return []Type{DNS01, DNSAccount01} }

// label is the one below which all challenges are.
const label = "_acme-challenge"

// Longest names, in characters.
const (
	longestName = 253 // of DNS (RFC 1035 section 2.3.4)
	// MaxHostname leaves room for the label of a dns-01 challenge.
	MaxHostname = longestName - len(label+".")
)

// Challenge is what an account proves its control of a hostname by: a TXT record.
type Challenge struct {
	Type             Type   // "" stands for DNS01
	Hostname         string // lower case, without trailing dot; a wildcard shares the name of its parent
	Account          string // URL of the account; of DNSAccount01 alone
	KeyAuthorization string // RFC 8555 section 8.1; "" where only the name matters
}

// Name returns where the CA looks for the record, fully qualified without trailing dot.
func (c Challenge) Name() string {
	name := label + "." + strings.TrimPrefix(c.Hostname, "*.")
	if c.Type == DNSAccount01 {
		return accountLabel(c.Account) + "." + name
	}
	return name
}

// accountLabel returns the label of an account: the first 10 bytes of the SHA-256 of its URL, in base32.
func accountLabel(url string) string {
	sum := sha256.Sum256([]byte(url))
	return "_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// Value returns what the CA wants to see there: the SHA-256 of the key authorization in base64url.
func (c Challenge) Value() string {
	sum := sha256.Sum256([]byte(c.KeyAuthorization))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Possible returns the challenges by which a CA may have an account prove a hostname: of the given types in their order, of
// DNS01 where there are none. Those are left out whose name DNS has no room for, and those that belong to an account while
// there is none; missing says that one was.
func Possible(types []Type, hostname, account string) (list []Challenge, missing bool) {
	if len(types) == 0 {
		types = Types()[:1]
	}
	for _, t := range types {
		c := Challenge{Type: t, Hostname: hostname, Account: account}
		switch {
		case t == DNSAccount01 && account == "":
			missing = true
		case len(c.Name()) <= longestName:
			list = append(list, c)
		}
	}
	return list, missing
}

// Standing reports whether one record serves all validations to come, so that it is never removed. None of the types that
// can be answered is of that kind; dns-persist-01 is.
func (c Challenge) Standing() bool { return false }

// Hostname returns the hostname that the name of a challenge is for, without a star; another name is returned as it is.
func Hostname(name string) string {
	if first, hostname, ok := strings.Cut(name, label+"."); ok && (first == "" || strings.HasSuffix(first, ".")) {
		return hostname
	}
	return name
}
