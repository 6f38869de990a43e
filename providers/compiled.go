package providers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"

	"github.com/libdns/desec"
	"github.com/libdns/libdns"

	"autocertd/internal/printable"
)

// builders returns every type that is known. To compile in a libdns module, name it in go.mod, import it here, and add
// a line to the second half.
func builders() map[string]builder {
	return map[string]builder{
		"cloudflare": newCloudflare,
		"exec":       newExec,
		"manual":     newManual,
		"nsupdate":   newNSUpdate,
		"rfc2136":    newRFC2136,

		"desec": compiled[desec.Provider],
	}
}

// compiled builds a provider from a libdns module whose Provider struct is T. The keys of the configuration are the
// struct's json tags, and every string may be kept elsewhere, as secrets are.
func compiled[T any, P interface {
	*T
	Client
}](opts Options) (*Provider, error) {
	var module P = new(T)
	secrets, err := decodeTagged(opts, module)
	if err != nil {
		return nil, err
	}
	path := reflect.TypeFor[T]().PkgPath()
	c := &compiledClient{
		module: module,
		name:   path[strings.LastIndex(path, "/")+1:],
		redact: newRedactor(secrets).redact,
		turn:   make(chan struct{}, 1),
	}
	return &Provider{Client: c}, nil
}

// compiledClient makes a Client of a libdns module. Few modules keep all of libdns's promises, so calls come one after
// the other: many modules read what is at a name, change it and write it back.
type compiledClient struct {
	module Client
	name   string
	redact func(string) string
	turn   chan struct{} // holds one token while a call runs
}

// AppendRecords adds recs to the zone and returns them.
func (c *compiledClient) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, zone, recs, c.module.AppendRecords)
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *compiledClient) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, zone, recs, c.module.DeleteRecords)
}

// moduleCall is a method of a libdns module.
type moduleCall func(context.Context, string, []libdns.Record) ([]libdns.Record, error)

func (c *compiledClient) write(ctx context.Context, zone string, recs []libdns.Record, call moduleCall) ([]libdns.Record, error) {
	zone, txts, err := relativeRecords(zone, recs)
	if err != nil {
		return nil, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
	}
	if err = ctx.Err(); err == nil {
		_, err = call(ctx, zone+".", asRecords(txts))
	}
	switch {
	case err == nil:
		return asRecords(txts), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s, zone %s: %w", c.name, zone, ctx.Err())
	}
	return nil, c.explain(zone, err)
}

// explain makes an error of one that the module made. Of what went wrong it tells no more than that the API can't be
// reached, and what it quotes may hold secrets.
func (c *compiledClient) explain(zone string, err error) *Error {
	text := printable.Short(c.redact(err.Error()), maxReason)
	_, unreachable := errors.AsType[net.Error](err)
	return &Error{
		Problem:   fmt.Sprintf("%s, zone %s: %s", c.name, zone, text),
		Err:       errors.New(text),
		retryable: unreachable,
		whole:     unreachable,
	}
}
