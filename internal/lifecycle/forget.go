package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"autocertd/internal/store"
)

// Kept is what the storage holds for a name.
type Kept struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"not_after,omitzero"` // of the certificate; zero when there is none, or it can't be read

	// Outputs are the places where files of the certificate were written last, by the state.
	Outputs []string `json:"-"`
	objects []string
}

// Unconfigured returns what is kept for names that aren't configured any more, in the order of the names.
func Unconfigured(ctx context.Context, store store.Store, configured func(name string) bool) ([]Kept, error) {
	objects, err := objectsByName(ctx, store)
	if err != nil {
		return nil, err
	}
	var list []Kept
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		if !configured(name) {
			list = append(list, kept(ctx, store, name, objects[name]))
		}
	}
	return list, nil
}

// objectsByName returns the keys of all objects that are about one certificate.
func objectsByName(ctx context.Context, store store.Store) (map[string][]string, error) {
	byName := map[string][]string{}
	for _, folder := range []string{"orders", "states", "bundles"} { // the bundle last, since it is what names are found by
		keys, err := store.List(ctx, folder)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			if name, ok := strings.CutSuffix(key[strings.LastIndexByte(key, '/')+1:], ".json"); ok {
				byName[name] = append(byName[name], key)
			}
		}
	}
	return byName, nil
}

// kept reads what can be read about a name; the rest is left out, since it is about to be forgotten.
func kept(ctx context.Context, store store.Store, name string, objects []string) Kept {
	k := Kept{Name: name, objects: objects}
	if state, err := loadState(ctx, store, name); err == nil {
		k.NotAfter = state.Leaf.NotAfter
		k.Outputs = slices.Sorted(maps.Keys(state.Outputs))
	}
	if k.NotAfter.IsZero() {
		if data, err := store.Load(ctx, bundleObject(name)); err == nil {
			b := new(Bundle)
			if json.Unmarshal(data, b) == nil {
				if leaf, err := b.parse(); err == nil {
					k.NotAfter = leaf.NotAfter.UTC()
				}
			}
		}
	}
	return k
}

// Forget deletes all that the storage holds for a name, the key of its certificate included. files is called before the
// last object goes, to remove what was made of it; when it fails, or the process dies, the name is still found by
// [Unconfigured].
func Forget(ctx context.Context, store Storage, k Kept, files func() error) error {
	unlock, err := store.Lock(ctx, lockName(k.Name))
	if err != nil {
		return err
	}
	defer unlock()
	if err := files(); err != nil {
		return err
	}
	var failed []error
	for _, key := range k.objects {
		failed = append(failed, store.Delete(ctx, key))
	}
	return errors.Join(failed...)
}
