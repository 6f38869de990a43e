package zones

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"autocertd/internal/cure"
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
		{"both are dead", cure.Several{refused, &net.OpError{Op: "read", Err: syscall.EHOSTUNREACH}}, true},
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

// A server that can't be asked is told in words, and a zone that its server can't load is no slip in a name.
func TestWordsOfTrouble(t *testing.T) {
	for err, want := range map[error]string{
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}: "can't be reached from here (no route to it)",
		&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.EHOSTUNREACH)}:   "can't be reached from here (no route to it)",
		&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNREFUSED)}:   "doesn't listen (connection refused)",
		&keyError{server: "192.0.2.1:53", key: "k"}:                                       `doesn't take TSIG key "k"`,
		&unansweredError{"192.0.2.1:53", []error{context.DeadlineExceeded}}:               "doesn't answer",
	} {
		if got := unreachable(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	s := asking(nil, Provider{Name: "bind", Zones: []string{"lame.test"}})
	defer s.Close()
	for rcode, hint := range map[int]bool{dns.RcodeServerFailure: false, dns.RcodeRefused: true} {
		err := s.hinted(t.Context(), Provider{}, Target{Chain: []string{"_acme-challenge.www.lane.test"}}, &refusedQuery{server: "192.0.2.1:53", name: "www.lane.test", rcode: rcode}, "")
		if strings.Contains(said(err), "did you mean www.lame.test?") != hint {
			t.Errorf("%s: %v", dns.RcodeToString[rcode], err)
		}
	}
	lookup := lookupError{&net.DNSError{Err: "no such host", Name: "ns.example.test"}}
	if lookup.Error() != "no such host" || !Silent(fmt.Errorf("name server: %w", lookup)) {
		t.Errorf("%v: silent %v", lookup, Silent(lookup))
	}
}
