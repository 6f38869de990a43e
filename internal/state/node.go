package state

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"autocertd/internal/store"
)

// Daemon is what the daemon of a host reports about itself.
type Daemon struct {
	PID           int       `json:"pid"`
	Started       time.Time `json:"started"`
	ConfigError   string    `json:"config_error,omitempty"` // why the files on disk aren't the configuration in use
	ConfigCure    string    `json:"config_cure,omitempty"`
	ConfigErrorAt time.Time `json:"config_error_at,omitzero"`
	StateError    string    `json:"state_error,omitempty"` // why the store can't be written
	StateCure     string    `json:"state_cure,omitempty"`
	StateErrorAt  time.Time `json:"state_error_at,omitzero"`
}

// DaemonLock names the lease of the daemon of a host.
const DaemonLock = "daemon"

// RunningDaemon returns the report of the daemon that runs, nil when none does.
func RunningDaemon(ctx context.Context, s Store) *Daemon {
	d := new(Daemon)
	for try := 0; ; try++ {
		data, err := s.Load(ctx, daemonKey)
		if err != nil {
			return nil
		}
		if json.Unmarshal(data, d) == nil {
			break
		}
		if try == 2 {
			return nil
		}
		time.Sleep(50 * time.Millisecond) // it is just being written over, see SaveDaemon
	}
	if holder, err := s.Holder(ctx, DaemonLock); err == nil && holder == nil {
		return nil
	}
	return d
}

// SaveDaemon replaces the report.
func SaveDaemon(ctx context.Context, w store.Writer, d Daemon) error {
	return saveLazily(ctx, w, daemonKey, d)
}

// OverwriteDaemon writes the report over the one that is there, where there is no room for another. A reader may see a part
// of each.
func OverwriteDaemon(o store.Overwriter, d Daemon) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return o.Overwrite(daemonKey, data)
}

// Doing is the step in which a certificate is now.
type Doing struct {
	Step  string    `json:"step"` // in words
	Since time.Time `json:"since"`
}

// LoadDoings returns what the running daemon is doing, by certificate; nothing when that isn't known.
func LoadDoings(ctx context.Context, r store.Reader) (now map[string]Doing) {
	data, err := r.Load(ctx, doingKey)
	if err != nil || json.Unmarshal(data, &now) != nil {
		return nil
	}
	return now
}

// SaveDoings replaces what the daemon is doing.
func SaveDoings(ctx context.Context, w store.Writer, now map[string]Doing) error {
	return saveLazily(ctx, w, doingKey, now)
}

// Configuration is what the daemon of a host took over from the files of its configuration.
type Configuration struct {
	Certificates []Configured    `json:"certificates"`
	Files        json.RawMessage `json:"files"` // how they were then, see config.ChangesSince
}

// Configured is a certificate that the daemon works for.
type Configured struct {
	Name      string   `json:"name"`
	Hostnames []string `json:"hostnames"`
}

// LoadConfiguration returns what a daemon took over last.
func LoadConfiguration(ctx context.Context, r store.Reader) (c Configuration, err error) {
	data, err := r.Load(ctx, configurationKey)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

// SaveConfiguration replaces it, and removes what earlier versions kept in its place.
func SaveConfiguration(ctx context.Context, w store.Writer, c Configuration) error {
	err := saveLazily(ctx, w, configurationKey, c)
	for _, key := range []string{"handwork.json", "roster.json", "sources.json"} {
		err = errors.Join(err, w.Delete(ctx, key))
	}
	return err
}

func saveLazily(ctx context.Context, w store.Writer, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.SaveLazily(ctx, key, data)
}

// Change names a certificate of which something was saved.
type Change struct {
	Name string
	Here bool // its deployment on this host; else its facts
}

// Watch returns a channel of certificates that are saved from now on, by other processes or this one, and of deployments on
// a host. The channel is closed when ctx ends.
func Watch(ctx context.Context, w store.Watcher, node string) (<-chan []Change, error) {
	facts, err := w.Watch(ctx, certificates)
	if err != nil {
		return nil, err
	}
	issued, err := w.Watch(ctx, bundles)
	if err != nil {
		return nil, err
	}
	files, err := w.Watch(ctx, deployments+"/"+node)
	if err != nil {
		return nil, err
	}
	changes := make(chan []Change)
	go func() { // ends with ctx
		defer close(changes)
		for ctx.Err() == nil {
			var keys []string
			here := false
			select {
			case keys = <-facts:
			case keys = <-issued:
			case keys = <-files:
				here = true
			}
			var list []Change
			for _, key := range keys {
				if name, ok := nameOf(key); ok {
					list = append(list, Change{name, here})
				}
			}
			select {
			case <-ctx.Done():
			case changes <- list:
			}
		}
	}()
	return changes, nil
}
