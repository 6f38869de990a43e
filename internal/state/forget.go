package state

import (
	"context"
	"maps"
	"slices"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/store"
)

// Kept is what the store holds for a name.
type Kept struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after,omitzero"` // of the certificate; zero when there is none, or it can't be read

	// Outputs are the places where files of the certificate were written last on this host.
	Outputs []string `json:"-"`
	keys    []string
}

// Unconfigured returns what is kept for names that aren't configured any more, in the order of the names.
func Unconfigured(ctx context.Context, s store.Store, node string, configured func(name string) bool) ([]Kept, error) {
	keys, err := keysByName(ctx, s)
	if err != nil {
		return nil, err
	}
	var list []Kept
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		if !configured(name) {
			list = append(list, kept(ctx, s, node, name, keys[name]))
		}
	}
	return list, nil
}

// keysByName returns the keys of all objects that are about one certificate.
func keysByName(ctx context.Context, s store.Store) (map[string][]string, error) {
	byName := map[string][]string{}
	for _, folder := range []string{deployments, orders, certificates, bundles} { // the bundle last, since it is what names are found by
		keys, err := s.List(ctx, folder)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if name, ok := nameOf(key); ok {
				byName[name] = append(byName[name], key)
			}
		}
	}
	return byName, nil
}

// kept reads what can be read about a name; the rest is left out, since it is about to be forgotten.
func kept(ctx context.Context, s store.Store, node, name string, keys []string) Kept {
	k := Kept{Name: name, keys: keys}
	if c, err := LoadFacts(ctx, s, name); err == nil {
		k.NotAfter = c.Leaf.NotAfter
	}
	if d, err := LoadDeployment(ctx, s, node, name); err == nil {
		k.Outputs = slices.Sorted(maps.Keys(d.Outputs))
	}
	if k.NotAfter.IsZero() {
		if _, leaf, err := LoadBundle(ctx, s, name); err == nil && leaf != nil {
			k.NotAfter = leaf.NotAfter.UTC()
		}
	}
	return k
}

// Forget deletes all that the store holds for a name, the key of its certificate included. files is called before the
// last object goes, to remove what was made of it; when it fails, or the process dies, the name is still found by
// [Unconfigured].
func Forget(ctx context.Context, s Store, k Kept, files func() error) error {
	lease, err := s.Acquire(ctx, Lock(k.Name))
	if err != nil {
		return err
	}
	defer lease.Release()
	if err := files(); err != nil {
		return err
	}
	var failed []error
	for _, key := range k.keys {
		failed = append(failed, lease.Delete(ctx, key))
	}
	return cure.Join(failed...)
}
