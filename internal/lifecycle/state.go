package lifecycle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/storage"
	"autocertd/issuer"
)

// State is what is remembered about one certificate. All of it can be found out again, so it is saved without waiting
// for the disk; keys and open orders are objects of their own.
type State struct {
	Name     string     `json:"name"`
	Wish     string     `json:"wish,omitempty"` // what configuration was last acted on
	Leaf     Leaf       `json:"leaf"`           // zero before the first certificate
	NextLook time.Time  `json:"next_look"`
	RenewAt  time.Time  `json:"renew_at,omitzero"`
	RenewWhy string     `json:"renew_why,omitempty"`
	Issue    Trouble    `json:"issue,omitzero"`
	Deploy   Trouble    `json:"deploy,omitzero"`
	Pending  []string   `json:"pending,omitempty"` // what is still to do for the outputs
	ARI      Suggestion `json:"ari,omitzero"`

	Outputs deploy.State `json:"outputs,omitempty"`
}

// Leaf is what is known of the certificate that is on disk.
type Leaf struct {
	Hostnames   []string  `json:"hostnames,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	CA          string    `json:"ca,omitempty"`
}

// Trouble is a row of failures that hasn't ended yet.
type Trouble struct {
	Failures int       `json:"failures,omitempty"`
	Error    string    `json:"error,omitempty"` // of the last
	At       time.Time `json:"at,omitzero"`
	RetryAt  time.Time `json:"retry_at,omitzero"`
}

// Suggestion is the CA's renewal window (RFC 9773) and the moment that was chosen in it, which stays as long as the
// window does.
type Suggestion struct {
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`
	Moment      time.Time `json:"moment,omitzero"`
	ChosenAt    time.Time `json:"chosen_at,omitzero"`
	Explanation string    `json:"explanation_url,omitempty"`
	AskAgain    time.Time `json:"ask_again,omitzero"`
}

func stateObject(name string) string     { return "states/" + name + ".json" }
func bundleObject(name string) string    { return "bundles/" + name + ".json" }
func orderObject(ca, name string) string { return "orders/" + ca + "/" + name + ".json" }
func lockName(name string) string        { return "certificate-" + name }

// loadState returns the state of a certificate, an empty one when there is none. One that can't be read was torn by a
// power loss; it is found out again.
func (m *Manager) loadState(ctx context.Context, name string) (*State, error) {
	return loadState(ctx, m.cfg.Storage, name)
}

func loadState(ctx context.Context, store storage.Store, name string) (*State, error) {
	state := &State{Name: name}
	data, err := store.Load(ctx, stateObject(name))
	switch {
	case errors.Is(err, storage.ErrNotExist):
		return state, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(data, state); err != nil || state.Name != name {
		return &State{Name: name}, nil
	}
	return state, nil
}

func (m *Manager) saveState(ctx context.Context, s *State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return m.cfg.Storage.SaveLazily(context.WithoutCancel(ctx), stateObject(s.Name), data)
}

// wish is a mark of all that the configuration says about a certificate. Another mark means that somebody changed it.
func wish(cert config.Certificate, outputs []deploy.Output) string {
	data, err := json.Marshal(struct {
		Certificate config.Certificate
		Outputs     []deploy.Output
	}{cert, outputs})
	if err != nil {
		panic(fmt.Sprintf("plain values can't fail to marshal: %v", err))
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// Bundle is what was issued for a certificate, in one object, so that a key and a chain that don't belong together can't
// exist.
type Bundle struct {
	Name      string    `json:"name"`
	Hostnames []string  `json:"hostnames"`
	KeyType   string    `json:"key_type"`
	Profile   string    `json:"profile,omitempty"`
	CA        string    `json:"ca"`
	Directory string    `json:"directory"`
	Account   string    `json:"account"`
	Issued    time.Time `json:"issued"`
	Key       string    `json:"key"`
	Leaf      string    `json:"leaf"`
	Chain     string    `json:"chain"`
}

// loadBundle returns the bundle of a certificate, nil when there is none.
func (m *Manager) loadBundle(ctx context.Context, name string) (*Bundle, error) {
	data, err := m.cfg.Storage.Load(ctx, bundleObject(name))
	if errors.Is(err, storage.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := new(Bundle)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("%s: %w", bundleObject(name), err)
	}
	return b, nil
}

// fits reports whether the bundle is what the configuration asks for now, and if not, what is different.
func (b *Bundle) fits(cert config.Certificate, issuers map[string]*issuer.Issuer) (differs string) {
	have, want := slices.Sorted(slices.Values(b.Hostnames)), slices.Sorted(slices.Values(cert.Hostnames))
	ca := issuers[b.CA]
	switch {
	case !slices.Equal(have, want):
		return "the hostnames changed"
	case b.KeyType != cert.KeyType:
		return "the key type changed"
	case b.Profile != cert.Profile:
		return "the profile changed"
	case !slices.Contains(cert.CAs, b.CA), ca == nil, ca.DirectoryURL() != b.Directory:
		return "the CA changed"
	}
	return ""
}

// keeper remembers the open order of one certificate at one CA.
type keeper struct {
	store  storage.Store
	object string
}

// Keep implements issuer.OrderKeeper.
func (k keeper) Keep(ctx context.Context, order issuer.OpenOrder) error {
	data, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return k.store.Save(ctx, k.object, data)
}

// Drop implements issuer.OrderKeeper.
func (k keeper) Drop(ctx context.Context) error { return k.store.Delete(ctx, k.object) }

// load returns the open order, nil when there is none or none that can be read.
func (k keeper) load(ctx context.Context) (*issuer.OpenOrder, error) {
	data, err := k.store.Load(ctx, k.object)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	order := new(issuer.OpenOrder)
	if json.Unmarshal(data, order) != nil || order.URL == "" {
		return nil, nil
	}
	return order, nil
}
