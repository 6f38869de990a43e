// Package config owns the way from the TOML files to one checked, immutable snapshot: strict reading, defaults, and
// every mistake at once with file, line and key. What the values lead to, and when files are read again, is left to
// the packages that use the snapshot.
package config

import (
	"crypto/x509"
	"log/slog"
	"path/filepath"
	"reflect"
	"time"

	"autocertd/internal/dnschallenge"
	"autocertd/internal/secret"
)

// Values that hold where the files say nothing.
const (
	DefaultStateDir           = "/var/lib/autocertd"
	DefaultSchedule           = "* * * * *"
	DefaultConcurrency        = 16
	DefaultKeyType            = "ecdsa-p256"
	DefaultPropagationTimeout = 2 * time.Minute
	DefaultTTL                = time.Minute
)

// A Config is one checked snapshot of all files. It is never changed after Load.
type Config struct {
	Path         string   // the main file, as given to Load
	Files        []string // every file that was read, in order
	StateDir     string
	Schedule     string // a cron expression: the ticks that start ordinary renewals
	Concurrency  int    // orders at a time per CA
	Renewal      Renewal
	Resolvers    []string // recursive resolvers as host:port; empty means the system's
	CAs          []CA     // in the order of the files
	Providers    []*Provider
	Certificates []Certificate
	Log          Log
	Warnings     Problems // what works, but hardly as intended
}

// Renewal says when renewals may happen.
type Renewal struct {
	Window    string        // the hours in which renewals may start; "" is any time
	Emergency time.Duration // the remaining lifetime below which the window no longer counts; 0 derives it from the lifetime
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // "auto", "text" or "json"
}

// A CA is one ACME server and the account to use there.
type CA struct {
	Name           string
	Directory      string // the URL of the directory (RFC 8555, section 7.1.1)
	Staging        string // the URL of the directory for rehearsals, or ""
	Email          string // contact of the account, or ""
	AcceptTerms    bool   // always true: Load refuses anything else
	EAB            *EAB   // nil without external account binding
	Roots          []*x509.Certificate
	RootFiles      []string            // the files that Roots were read from
	Hosts          []string            // host:port where the CA's URLs may lead to, besides the directory's own
	Profile        string              // for certificates that name none
	PreferredChain string              // the root to prefer: its common name, or its SHA-256 fingerprint in hex
	Challenges     []dnschallenge.Type // of which the first that the CA offers is answered; nil for dns-01

	limits overrides // see Limits
}

// EAB is an external account binding (RFC 8555, section 7.3.4).
type EAB struct {
	KeyID   string
	HMACKey secret.Secret // in base64url without padding, however the CA handed it out
}

// A Provider is a configured way to write records into zones. What its type needs besides is read with Decode.
type Provider struct {
	Name               string
	Type               string
	Zones              []string      // without a trailing dot; empty only when this is the one provider
	Nameservers        []string      // host:port, to ask instead of the zone's own
	Check              string        // whom to ask for published records: "authoritative", "primary", "resolvers" or "none"
	MinNameservers     int           // how many of those must have a record; 0: all
	Settle             bool          // each must have been seen to have it twice in a row
	PropagationTimeout time.Duration // how long to look for published records
	TTL                time.Duration // of published records, in whole seconds

	sources *Sources
	options *rest // behind a pointer, so that printing a provider doesn't print them: a secret may be among them
}

// Decode stores the keys of the provider's table that this package doesn't own in dst, a pointer to a struct with toml
// tags. A string that is the name of a file to be read has the tag `reads:"file"` beside it. Unknown keys and wrong types are Problems. It may be called several times.
func (p *Provider) Decode(dst any) error {
	return p.options.decode(dst, p.sources, tags(reflect.TypeFor[rawProvider]())).orNil()
}

// Equal reports whether two providers are configured alike, wherever that stands. It doesn't look into files that hold keys.
func (p *Provider) Equal(q *Provider) bool {
	a, b := *p, *q
	a.options, a.sources, b.options, b.sources = nil, nil, nil, nil
	return reflect.DeepEqual(a, b) && reflect.DeepEqual(p.options.values, q.options.values)
}

// Dir returns the folder of the file that defines the provider, which relative paths in its table start from.
func (p *Provider) Dir() string { return filepath.Dir(p.options.at.file) }

// A Certificate is the wish for one certificate.
type Certificate struct {
	Name      string
	Hostnames []string // normalised, without duplicates, in the order of the file
	CAs       []string // names of CAs, tried in turn
	KeyType   string   // "" with a CSR
	Profile   string   // "" leaves the choice to the CA's Profile
	ReuseKey  bool     // renewals are for the same key
	CSRFile   string   // the file that CSR was read from, or ""
	CSR       []byte   // PKCS #10 in DER, by a key that stays elsewhere; nil for a key of ours
}

// Checks are what the caller knows and this package must not import. A nil function checks nothing.
type Checks struct {
	Schedule func(text string) error
	Window   func(text string) error
	Provider func(p *Provider) error // Problems are reported as they are, other errors at the provider's table, or at the key that their method Key() string names
	// Outputs builds the outputs from their tables. OutputKeys are the keys that it knows.
	Outputs    func(c *Config, tables []Table)
	OutputKeys []string
	// Sources gets to know all files that are looked for, whatever is wrong with them; nil wants to know none.
	Sources *Sources
}

// Load reads the file at path and the drop-ins in conf.d beside it. An error is always of type Problems, and holds every
// mistake of every file, or the first hundred and how many more there are.
func Load(path string, checks Checks) (*Config, error) {
	l := &loader{checks: checks, config: &Config{Path: path}}
	l.build(l.read(path))
	if len(l.problems) > 0 {
		return nil, l.problems.first(l.config.Files)
	}
	l.config.Warnings = l.config.Warnings.first(l.config.Files)
	return l.config, nil
}
