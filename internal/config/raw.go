package config

import (
	"time"

	"autocertd/internal/secret"
)

// The raw structs mirror a file. Every key is kept with its place, so that a value can be found wrong long after it was
// decoded.

type rawConfig struct {
	Hostnames    list                                 `toml:"hostnames"`
	StateDir     field[string]                        `toml:"state_dir"`
	Schedule     field[string]                        `toml:"schedule"`
	Concurrency  field[int]                           `toml:"concurrency"`
	Renewal      field[rawRenewal]                    `toml:"renewal"`
	Defaults     field[rawDefaults]                   `toml:"defaults"`
	Resolvers    field[rawResolvers]                  `toml:"resolvers"`
	CAs          field[map[string]field[rawCA]]       `toml:"ca"`
	Providers    field[map[string]field[rawProvider]] `toml:"provider"`
	Certificates []field[rawCertificate]              `toml:"certificate"`
	Outputs      []field[rawOutput]                   `toml:"output"`
	Log          field[rawLog]                        `toml:"log"`
}

type rawRenewal struct {
	Window    field[string]        `toml:"window"`
	Emergency field[time.Duration] `toml:"emergency"`
}

type rawDefaults struct {
	CA      list          `toml:"ca"`
	KeyType field[string] `toml:"key_type"`
	Profile field[string] `toml:"profile"`
}

type rawResolvers struct {
	Public list `toml:"public"`
}

type rawLog struct {
	Level  field[string] `toml:"level"`
	Format field[string] `toml:"format"`
}

type rawCA struct {
	Directory      field[string]    `toml:"directory"`
	Staging        field[string]    `toml:"staging"`
	Email          field[string]    `toml:"email"`
	AcceptTerms    field[bool]      `toml:"accept_terms"`
	EAB            field[rawEAB]    `toml:"eab"`
	Roots          list             `toml:"roots"`
	Hosts          list             `toml:"hosts"`
	Profile        field[string]    `toml:"profile"`
	PreferredChain field[string]    `toml:"preferred_chain"`
	Challenge      list             `toml:"challenge"`
	Limits         field[rawLimits] `toml:"limits"`
}

type rawEAB struct {
	KeyID   field[string]        `toml:"kid"`
	HMACKey field[secret.Secret] `toml:"hmac_key"`
}

type rawProvider struct {
	Type               field[string]        `toml:"type"`
	Zones              list                 `toml:"zones"`
	Nameservers        list                 `toml:"nameservers"`
	Check              field[string]        `toml:"check"`
	MinNameservers     field[int]           `toml:"min_nameservers"`
	Settle             field[bool]          `toml:"settle"`
	PropagationTimeout field[time.Duration] `toml:"propagation_timeout"`
	TTL                field[time.Duration] `toml:"ttl"`
	Options            rest
}

type rawCertificate struct {
	Name      field[string] `toml:"name"`
	Hostnames list          `toml:"hostnames"`
	CA        list          `toml:"ca"`
	KeyType   field[string] `toml:"key_type"`
	Profile   field[string] `toml:"profile"`
	ReuseKey  field[bool]   `toml:"reuse_key"`
	CSR       field[string] `toml:"csr"`
}

type rawOutput struct {
	Match   list `toml:"match"`
	Options rest
}
