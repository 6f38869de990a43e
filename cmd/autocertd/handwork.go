package main

import (
	"context"
	"encoding/json"
	"time"

	"autocertd/internal/store"
)

// handworkObject says when a command last worked on certificates.
const handworkObject = "handwork.json"

// noteHandwork makes the daemon soon read from the states again when each certificate is due, and how it is: it knows only
// what it did itself. Where there is no room for the note, it comes to that at the next look.
func noteHandwork(ctx context.Context, store store.Store) error {
	data, err := json.Marshal(struct {
		At time.Time `json:"at"`
	}{time.Now().UTC()})
	if err != nil {
		return err
	}
	return store.SaveLazily(context.WithoutCancel(ctx), handworkObject, data)
}

// handwork notices that a command has worked on certificates.
type handwork struct {
	store store.Store
	last  string // the note, as it was last read
}

// changed reports whether a command has worked on certificates since this was last asked.
func (h *handwork) changed(ctx context.Context) bool {
	data, err := h.store.Load(ctx, handworkObject)
	if err != nil || string(data) == h.last {
		return false
	}
	h.last = string(data)
	return true
}
