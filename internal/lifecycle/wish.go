package lifecycle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/state"
)

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
