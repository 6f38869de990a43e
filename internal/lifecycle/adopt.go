package lifecycle

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
)

// Adopt saves a bundle that another client got, as if it had been issued here, and reports whether that changed
// anything. Another bundle is kept, which is an error that wraps fs.ErrExist, unless overwrite is set. A certificate that
// another process works on is a *storage.HeldError.
func Adopt(ctx context.Context, store Storage, b *Bundle, overwrite bool) (changed bool, err error) {
	if _, err := tls.X509KeyPair([]byte(b.Leaf), []byte(b.Key)); err != nil {
		return false, err
	}
	unlock, err := store.TryLock(ctx, lockName(b.Name))
	if err != nil {
		return false, err
	}
	defer unlock()
	old, leaf, err := New(Config{Storage: store}).loadBundle(ctx, b.Name)
	switch {
	case err != nil && !overwrite:
		return false, err
	case old == nil:
	case old.Leaf == b.Leaf && old.CA == b.CA && old.Directory == b.Directory:
		return false, nil
	case !overwrite:
		return false, fmt.Errorf("there is one with the serial number %x: %w", leaf.SerialNumber, fs.ErrExist)
	}
	data, err := json.Marshal(b)
	if err != nil {
		return false, err
	}
	return true, store.Save(ctx, bundleObject(b.Name), data)
}
