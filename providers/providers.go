// Package providers turns a provider's type and options into a libdns implementation that adds and removes TXT records,
// and its failures into errors that name the cure.
// Which zone a name belongs to, what is published when, and waiting for it are left to others.
package providers

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/cure"
	"autocertd/internal/secret"
	"autocertd/internal/suggest"
)

// Client writes records into zones. Both methods take the zone with or without a trailing dot and names relative to it,
// accept TXT records with a value only, are idempotent (adding what is there and removing what is absent succeed), leave
// every other value alone, and may be called concurrently. A nil error means that the server confirmed all records;
// after an error any part of them may have been written. What the server refused is reported as an [*Error].
type Client interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

// Options are what the configuration says about one provider.
type Options struct {
	// Decode decodes the provider's own keys into a pointer to a struct with toml tags; unknown keys are errors.
	Decode func(dst any) error

	// Dir is the directory that relative paths start from.
	Dir string

	// Logger gets what the programs of providers write to their standard error. Nil is silent.
	Logger *slog.Logger
}

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// path makes a path from the configuration absolute, or relative to the current directory if Dir is empty.
func (o Options) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(o.Dir, p)
}

// Provider is a configured way to write records into zones.
type Provider struct {
	Client Client

	// Servers are the host:port of the servers that records are written to. They answer authoritatively about the zones
	// and know every change first. HTTP APIs have none.
	Servers []string

	// Key is what updates are signed with, for look-ups that must be answered from the same view. Nil without one.
	Key *secret.TSIGKey

	// Timeout is how long one call may take, for providers that know better than their caller. Zero: they don't.
	Timeout time.Duration

	// Manual says that a person writes the records: they are waited for, and Client is never called.
	Manual bool

	// ExplainKey finds out why a server doesn't take the key of a signed question about a name. Nil where nobody can.
	ExplainKey func(ctx context.Context, server, name string) error
}

// builder makes a provider of one type from its options.
type builder func(Options) (*Provider, error)

// Names returns the known types in alphabetical order.
func Names() []string {
	return slices.Sorted(maps.Keys(builders()))
}

// mostSlips is how many slips a type's name may hold to be taken for another's. More than those lead from one RFC to another.
const mostSlips = 2

// New builds a provider of the given type. It checks everything that can be checked without asking a server, reports all
// mistakes together, and reads the files that the options name.
func New(typ string, opts Options) (*Provider, error) {
	build, ok := builders()[typ]
	if !ok {
		guess := ""
		if near := suggest.Nearest(typ, Names()); near != "" && suggest.Distance(strings.ToLower(typ), near) <= mostSlips {
			guess = fmt.Sprintf("did you mean %q? ", near)
		}
		return nil, fmt.Errorf("unknown provider type %q; %sknown types: %s", typ, guess, strings.Join(Names(), ", "))
	}
	return build(opts)
}

// optionError is a mistake at a key of the provider's table.
type optionError struct {
	key string
	err error
}

// at says of each of the mistakes that stand side by side in err at which key of the provider's table it is. It returns nil
// when there is none.
func at(key string, err error) error {
	if err == nil {
		return nil
	}
	var list []error
	for _, part := range cure.Parts(err) {
		list = append(list, &optionError{key, part})
	}
	return cure.Join(list...)
}

// Error returns the key and the mistake.
func (e *optionError) Error() string { return e.key + ": " + e.err.Error() }

// Key returns the key as the table has it.
func (e *optionError) Key() string { return e.key }

// Unwrap returns the mistake.
func (e *optionError) Unwrap() error { return e.err }
