package main

import (
	"context"
	"encoding/json"
	"fmt"

	"autocertd/internal/config"
	"autocertd/internal/store"
)

// rosterObject lists the certificates that the daemon works for, so that status can show them while the files on disk
// have mistakes.
const rosterObject = "roster.json"

type rosterEntry struct {
	Name      string   `json:"name"`
	Hostnames []string `json:"hostnames"`
}

func saveRoster(ctx context.Context, store store.Store, certs []config.Certificate) error {
	list := make([]rosterEntry, len(certs))
	for i, c := range certs {
		list[i] = rosterEntry{c.Name, c.Hostnames}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return store.SaveLazily(ctx, rosterObject, data)
}

// loadRoster returns the certificates of the last configuration that a daemon took over.
func loadRoster(ctx context.Context, store store.Store) ([]config.Certificate, error) {
	data, err := store.Load(ctx, rosterObject)
	if err != nil {
		return nil, err
	}
	var list []rosterEntry
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", rosterObject, err)
	}
	certs := make([]config.Certificate, len(list))
	for i, e := range list {
		certs[i] = config.Certificate{Name: e.Name, Hostnames: e.Hostnames}
	}
	return certs, nil
}
