// Package cure keeps the problem and the cure of an error apart until a person reads them, and joins errors by their
// cause. It never looks at an error's text; what texts look like on a terminal is left to the packages that print.
package cure

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Curer is an error that knows what a person can do about it. Its Error method returns the problem alone.
type Curer interface {
	error
	// Cure returns a sentence, lines to paste or a command to run; "" when none is known.
	Cure() string
}

// Of returns the cures of an error, one below the other and each once: those of the outermost errors in its tree that know
// one. It returns "" when none is known.
func Of(err error) string {
	var list []string
	collect(err, func(text string) {
		if !slices.Contains(list, text) {
			list = append(list, text)
		}
	})
	return strings.Join(list, "\n")
}

func collect(err error, found func(string)) {
	if c, ok := err.(Curer); ok {
		if text := c.Cure(); text != "" {
			found(text)
			return
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		collect(e.Unwrap(), found)
	case interface{ Unwrap() []error }:
		for _, each := range e.Unwrap() {
			collect(each, found)
		}
	}
}

// With adds a cure to an error. An empty cure changes nothing.
func With(err error, cure string) error {
	if err == nil || cure == "" {
		return err
	}
	return &cured{err, cure}
}

// New returns an error with a problem and its cure.
func New(problem, cure string) error { return With(errors.New(problem), cure) }

type cured struct {
	error
	cure string
}

func (e *cured) Cure() string  { return e.cure }
func (e *cured) Unwrap() error { return e.error }

// For says what was being done to which of several things, such as a record or a host, when an error occurred. [Join]
// says a cause once that several of them have in common.
func For(doing, name string, err error) error {
	if err == nil {
		return nil
	}
	return &Group{Doing: doing, Names: []string{name}, Cause: err}
}

// Group is one cause for one or more things that something was being done to.
type Group struct {
	Doing string   // such as "publishing"
	Names []string // in the order in which they failed
	Cause error
}

// namesShown is how many names of a group are said.
const namesShown = 3

// Error returns what was being done, to which names, and the cause.
func (g *Group) Error() string { return fmt.Sprintf("%s %s: %v", g.Doing, List(g.Names), g.Cause) }

// Unwrap returns the cause.
func (g *Group) Unwrap() error { return g.Cause }

// List names the first of several things, and how many more there are.
func List(names []string) string {
	if more := len(names) - namesShown; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namesShown], ", "), more)
	}
	return strings.Join(names, ", ")
}

// Join joins errors. Nil errors are left out, an error that is there already is too, and groups with the same doing and the
// same cause become one. It returns nil when nothing is left, and the error itself when there is one.
func Join(errs ...error) error {
	var list Several
	for _, err := range errs {
		switch e := err.(type) {
		case nil:
		case Several:
			list = list.add(e...)
		default:
			list = list.add(e)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return list
}

// Several are errors that occurred side by side, as [Join] returns them. Its text is one line.
type Several []error

func (s Several) add(errs ...error) Several {
next:
	for _, err := range errs {
		group, grouped := err.(*Group)
		for i, known := range s {
			other, alike := known.(*Group)
			switch {
			case grouped && alike && group.Doing == other.Doing && Same(group.Cause, other.Cause):
				names := slices.Clone(other.Names)
				for _, name := range group.Names {
					if !slices.Contains(names, name) {
						names = append(names, name)
					}
				}
				s[i] = &Group{Doing: other.Doing, Names: names, Cause: other.Cause}
				continue next
			case Same(err, known):
				continue next
			}
		}
		s = append(s, err)
	}
	return s
}

// Error returns the first errors, and how many more there are.
func (s Several) Error() string {
	var texts []string
	for i, err := range s {
		if i == namesShown && len(s) > namesShown {
			texts = append(texts, fmt.Sprintf("and %d more", len(s)-i))
			break
		}
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the errors.
func (s Several) Unwrap() []error { return s }

// Same reports whether two errors have the same cause: they are one error, or of one type with equal values. A type whose
// values differ where the cause doesn't has a method SameCause(error) bool.
func Same(a, b error) bool {
	if s, ok := a.(interface{ SameCause(error) bool }); ok {
		return s.SameCause(b)
	}
	return reflect.DeepEqual(a, b)
}

// Parts returns the errors that stand side by side in err, each to be said with its own cure: the parts of a [Several] or
// of [errors.Join], else the error itself.
func Parts(err error) []error {
	list, ok := err.(interface{ Unwrap() []error })
	_, ours := err.(Several)
	if !ours && (!ok || reflect.TypeOf(err) != reflect.TypeOf(errors.Join(err))) { // others with several causes have a text of their own
		return []error{err}
	}
	var parts []error
	for _, each := range list.Unwrap() {
		parts = append(parts, Parts(each)...)
	}
	return parts
}
