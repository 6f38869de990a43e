package zones

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"syscall"

	"autocertd/internal/cure"
)

// Silent reports whether an error means that a DNS server, or the API of a provider, gave no answer at all: it can't be
// reached, or it doesn't reply. Such an outage says nothing about the certificate, unlike a refusal. Of several failures all
// must be silent. An error may say it itself by a method Silent() bool.
func Silent(err error) bool {
	if err == nil {
		return false
	}
	switch e := err.(type) {
	case interface{ Silent() bool }:
		return e.Silent()
	case *net.DNSError:
		return true
	case *net.OpError:
		return e.Timeout() || Silent(e.Err)
	case interface{ Unwrap() []error }:
		list := e.Unwrap()
		for _, one := range list {
			if !Silent(one) {
				return false
			}
		}
		return len(list) > 0
	}
	if below := errors.Unwrap(err); below != nil {
		return Silent(below)
	}
	switch err {
	case context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF:
		return true
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EPIPE, syscall.ETIMEDOUT:
		return true
	}
	return isTimeout(err)
}

// Heard notes whether a provider's servers answered, by the result of what was sent to them or asked, and calls
// Config.Answered when they do again. A call that was broken off says nothing.
func (a *Asker) Heard(provider string, err error) {
	silent := Silent(err)
	if !silent && errors.Is(err, context.Canceled) {
		return
	}
	a.mu.Lock()
	again := a.mute[provider] && !silent
	if again {
		delete(a.mute, provider)
	} else if silent {
		a.mute[provider] = true
	}
	a.mu.Unlock()
	if again && a.cfg.Answered != nil {
		a.cfg.Answered(provider)
	}
}

// Probe asks the providers that were silent whether they answer again.
func (a *Asker) Probe(ctx context.Context) {
	a.mu.Lock()
	names := slices.Sorted(maps.Keys(a.mute))
	a.mu.Unlock()
	each(len(names), func(i int) {
		p, known := a.provider(names[i])
		if !known || len(p.Servers) == 0 {
			return // the next order finds out
		}
		zone := "."
		if len(p.Zones) > 0 {
			zone = p.Zones[0]
		}
		if _, err := awake(ctx, p.servers(), zone); err == nil {
			a.Heard(p.Name, nil)
		}
	})
}

// Outage returns the part of an error that is about the servers that gave no answer, the same for every name that was asked
// for; nil when something else failed too.
func Outage(err error) error {
	unanswered, ok := errors.AsType[*unansweredError](err)
	if !ok || !Silent(err) {
		return nil
	}
	for err := err; err != nil; err = errors.Unwrap(err) {
		if list, ok := err.(cure.Several); ok { // each of several servers is named
			return list
		}
	}
	return unanswered
}
