package storetest

import (
	"context"

	"autocertd/internal/store"
)

// Hooked is a lease whose writes a test can have fail, with the effect of the write or without it.
type Hooked struct {
	store.Lease
	// Write is called for each write: op is the name of the method, and write does it.
	Write func(op, key string, write func() error) error
}

// Save implements store.Writer.
func (h Hooked) Save(ctx context.Context, key string, data []byte) error {
	return h.Write("Save", key, func() error { return h.Lease.Save(ctx, key, data) })
}

// SaveLazily implements store.Writer.
func (h Hooked) SaveLazily(ctx context.Context, key string, data []byte) error {
	return h.Write("SaveLazily", key, func() error { return h.Lease.SaveLazily(ctx, key, data) })
}

// Delete implements store.Writer.
func (h Hooked) Delete(ctx context.Context, key string) error {
	return h.Write("Delete", key, func() error { return h.Lease.Delete(ctx, key) })
}
