package providers

// Error is a failure of a provider: what was wrong, and how to cure it. A caller that holds only an error finds it with
// errors.As, or asks for one of its methods through an interface of its own.
type Error struct {
	// Problem says in one sentence which server, key, secret, algorithm, zone or name is at fault.
	Problem string

	// Hint is the cure: where one exists, a line to paste or a command to run. It may be empty.
	Hint string

	// Err is the original failure.
	Err error

	retryable bool
	whole     bool
}

// Error returns the problem and its cure.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Problem
	}
	return e.Problem + "; " + e.Hint
}

// Unwrap returns the original failure.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether nothing is known to be wrong with the request, so that the same one may succeed later.
func (e *Error) Retryable() bool { return e.retryable }

// Whole reports whether no record among several can be the culprit, so that it is pointless to split the group.
func (e *Error) Whole() bool { return e.whole }
