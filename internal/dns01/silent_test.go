package dns01

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// saying is an error that knows itself whether anybody answered.
type saying bool

func (s saying) Error() string { return "it says so" }
func (s saying) Silent() bool  { return bool(s) }

func TestSilent(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"no error", nil, false},
		{"nobody listens", &unansweredError{"192.0.2.1:53", []error{refused, refused}}, true},
		{"no reply in time", fmt.Errorf("publishing: %w", &unansweredError{"192.0.2.1:53", []error{context.DeadlineExceeded}}), true},
		{"an unsigned reply", &unansweredError{"192.0.2.1:53", []error{errUnsigned, refused}}, false},
		{"the name of the server isn't known", &net.DNSError{Err: "no such host", IsNotFound: true}, true},
		{"the key isn't taken", &keyError{server: "192.0.2.1:53", key: "k"}, false},
		{"an answer that says nothing", &refusedQuery{server: "192.0.2.1:53", rcode: dns.RcodeServerFailure}, false},
		{"one server answers, the other is dead", errors.Join(refused, errors.New("REFUSED")), false},
		{"both are dead", several{refused, &net.OpError{Op: "read", Err: syscall.EHOSTUNREACH}}, true},
		{"a provider says that nobody answered", fmt.Errorf("publishing: %w", saying(true)), true},
		{"a provider says that somebody did", errors.Join(refused, saying(false)), false},
		{"all servers that lack the record are dead", &PropagationError{silent: 2, late: 2}, true},
		{"one of those is late", &PropagationError{silent: 1, late: 2}, false},
		{"the order was given up", context.Canceled, false},
	}
	for _, tt := range tests {
		if got := Silent(tt.err); got != tt.want {
			t.Errorf("%s: Silent = %v", tt.name, got)
		}
	}
}
