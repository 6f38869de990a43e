package providers

// Error is a failure of a provider: what was wrong, and how to cure it. A caller that holds only an error finds it with
// errors.As, or asks for one of its methods through an interface of its own.
//
// Three questions are kept apart, since each may have any answer:
//
//   - [Error.Retryable]: may the same request succeed later, without a person?
//   - [Error.Whole]: does the failure concern every request to this zone, so that no record of a group is to blame? Where
//     that isn't certain it is false, also for failures that are retryable: a server may answer SERVFAIL to one name alone.
//   - [Error.Uncertain]: may the change have been made all the same? Only then must a record that was added be remembered.
type Error struct {
	// Problem says in one sentence which server, key, secret, algorithm, zone or name is at fault.
	Problem string

	// Hint is the cure: where one exists, a line to paste or a command to run. It may be empty.
	Hint string

	// Err is the original failure.
	Err error

	retryable bool
	whole     bool
	effect    effect
}

// effect is what is known about a change that was reported as failed.
type effect int

const (
	effectUnsaid effect = iota // nobody said: uncertain when it may be tried again
	effectNone                 // nothing was sent, the server's signature says so, or the server was seen to be without it
	effectMaybe                // no answer, or one that anybody could have sent
)

// Error returns the problem.
func (e *Error) Error() string { return e.Problem }

// Cure returns the hint.
func (e *Error) Cure() string { return e.Hint }

// SameCause reports whether another failure is the same: what was found out, and what is to be done.
func (e *Error) SameCause(other error) bool {
	o, ok := other.(*Error)
	return ok && e.Problem == o.Problem && e.Hint == o.Hint && e.Retryable() == o.Retryable() && e.Whole() == o.Whole() && e.Uncertain() == o.Uncertain()
}

// Unwrap returns the original failure.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether nothing is known to be wrong with the request, so that the same one may succeed later.
func (e *Error) Retryable() bool { return e.retryable }

// Whole reports whether no record among several can be the culprit, so that it is pointless to split the group.
func (e *Error) Whole() bool { return e.whole }

// Uncertain reports whether the change may have been made, or may yet be. An answer without a valid signature leaves it
// uncertain, whatever the answer says (RFC 8945, 5.3).
func (e *Error) Uncertain() bool {
	return e.effect == effectMaybe || e.effect == effectUnsaid && e.retryable
}
