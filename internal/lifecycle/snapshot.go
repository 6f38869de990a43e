package lifecycle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/state"
	"autocertd/issuer"
	"autocertd/scheduler"
)

// Snapshot is what one configuration means to the certificates. It is never changed; a reload makes another.
type Snapshot struct {
	Certificates map[string]config.Certificate
	Outputs      deploy.Outputs
	CAs          map[string]config.CA
	Issuers      map[string]*issuer.Issuer // of those
	Window       scheduler.Window
	Schedule     scheduler.Schedule // whose ticks start ordinary renewals; nil starts them at any time
	Emergency    time.Duration
	Solver       issuer.Solver // with the providers of the same configuration; nil is that of the issuers
	Reloaded     time.Time     // when the configuration was read, at a start too; zero when no person had a hand in it

	jobs    atomic.Int64 // that go by it
	oneLane bool         // for each CA, since there are so many domains
}

// maxLanes bounds the lanes of a snapshot; see Manager.Lane.
const maxLanes = 256

// NewSnapshot takes what it needs of a configuration.
func NewSnapshot(cfg *config.Config, outputs deploy.Outputs, issuers map[string]*issuer.Issuer, window scheduler.Window) *Snapshot {
	s := &Snapshot{
		Certificates: make(map[string]config.Certificate, len(cfg.Certificates)),
		Outputs:      outputs,
		CAs:          make(map[string]config.CA, len(cfg.CAs)),
		Issuers:      issuers,
		Window:       window,
		Emergency:    cfg.Renewal.Emergency,
	}
	for _, c := range cfg.Certificates {
		s.Certificates[c.Name] = c
	}
	for _, ca := range cfg.CAs {
		s.CAs[ca.Name] = ca
	}
	lanes := map[string]bool{}
	for _, c := range cfg.Certificates {
		if lanes[lane(c)] = true; len(lanes) > maxLanes {
			s.oneLane = true
			break
		}
	}
	return s
}

// lane is what a certificate shares its troubles with: its first CA, and the domain of its first hostname, which stands for
// the DNS servers.
func lane(c config.Certificate) string {
	_, domain, _ := strings.Cut(c.Hostnames[0], ".")
	return c.CAs[0] + " " + domain
}

// mayHaveMended reports whether a person who had the configuration read again may have removed the cause of a failure. It
// doesn't count for failures that a CA counts.
func (s *Snapshot) mayHaveMended(t state.Trouble) bool {
	return t.Failures > 0 && !t.AtCA && t.At.Before(s.Reloaded)
}

// BuildOutputs builds the outputs of a configuration from its tables; see [config.Checks].
func BuildOutputs(c *config.Config, tables []config.Table) deploy.Outputs {
	all := make([]deploy.Table, len(tables))
	for i, table := range tables {
		all[i] = deploy.Table(table)
	}
	certificates := make([]deploy.Certificate, len(c.Certificates))
	for i, cert := range c.Certificates {
		certificates[i] = deploy.Certificate{Name: cert.Name, KeyElsewhere: cert.CSR != nil}
	}
	return deploy.NewOutputs(all, certificates, c.StateDir)
}

// fits returns what is different between the bundle and what the configuration asks for now, "" when nothing is.
func (s *Snapshot) fits(b *state.Bundle, cert config.Certificate) (differs string) {
	have, want := slices.Sorted(slices.Values(b.Hostnames)), slices.Sorted(slices.Values(cert.Hostnames))
	ca := s.Issuers[b.CA]
	switch {
	case !slices.Equal(have, want):
		return "the hostnames changed"
	case !bytes.Equal(b.CSR, cert.CSR):
		return "the CSR changed"
	case cert.CSR == nil && b.KeyType != cert.KeyType:
		return "the key type changed"
	case !slices.Contains(cert.CAs, b.CA), ca == nil, ca.DirectoryURL() != b.Directory:
		return "the CA changed"
	case b.Profile != s.profile(cert, b.CA):
		return "the profile changed"
	}
	return ""
}

// profile is what a CA is asked for: what the certificate names, else what the CA's table does.
func (s *Snapshot) profile(cert config.Certificate, ca string) string {
	return cmp.Or(cert.Profile, s.CAs[ca].Profile)
}

// wish is a mark of all that the configuration says about a certificate. Another mark means that somebody changed it.
func (s *Snapshot) wish(cert config.Certificate) string {
	type account struct {
		Directory, Profile, Email, KeyID string
		Roots                            []string
	}
	accounts := make([]account, len(cert.CAs))
	for i, name := range cert.CAs {
		ca := s.CAs[name]
		accounts[i] = account{Directory: ca.Directory, Profile: ca.Profile, Email: ca.Email, Roots: ca.RootFiles}
		if ca.EAB != nil {
			accounts[i].KeyID = ca.EAB.KeyID
		}
	}
	data, err := json.Marshal(struct {
		Certificate config.Certificate
		Accounts    []account
		Outputs     []deploy.Output
	}{cert, accounts, s.Outputs.Of(cert.Name)})
	if err != nil {
		panic(fmt.Sprintf("plain values can't fail to marshal: %v", err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
