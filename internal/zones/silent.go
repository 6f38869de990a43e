package zones

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
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

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}
