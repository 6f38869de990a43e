package cure_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"autocertd/internal/cure"
)

type failure struct{ problem, hint string }

func (f *failure) Error() string { return f.problem }
func (f *failure) Cure() string  { return f.hint }

func TestOf(t *testing.T) {
	refused := &failure{"refused", "rndc thaw"}
	tests := []struct {
		name          string
		err           error
		problem, cure string
	}{
		{"no cure is known", fs.ErrNotExist, "file does not exist", ""},
		{"an error knows its cure", refused, "refused", "rndc thaw"},
		{"a wrapped error keeps its cure", fmt.Errorf("zone a: %w", refused), "zone a: refused", "rndc thaw"},
		{"the outermost cure counts", cure.With(refused, "wait"), "refused", "wait"},
		{"an error without a cure passes on that of its cause", &cure.Group{Doing: "publishing", Names: []string{"x"}, Cause: refused}, "publishing x: refused", "rndc thaw"},
		{"an empty cure changes nothing", cure.With(refused, ""), "refused", "rndc thaw"},
		{"equal cures are said once", cure.Join(refused, cure.New("late", "rndc thaw")), "refused; late", "rndc thaw"},
		{"several cures stand below one another", cure.Join(refused, cure.New("late", "wait")), "refused; late", "rndc thaw\nwait"},
		{"those of errors.Join count too", fmt.Errorf("twice: %w", errors.Join(refused, fs.ErrExist)), "twice: refused\nfile already exists", "rndc thaw"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.problem {
			t.Errorf("%s: problem %q, want %q", tt.name, got, tt.problem)
		}
		if got := cure.Of(tt.err); got != tt.cure {
			t.Errorf("%s: cure %q, want %q", tt.name, got, tt.cure)
		}
	}
	if cure.Of(nil) != "" || cure.With(nil, "wait") != nil || cure.For("publishing", "x", nil) != nil {
		t.Error("no error has a cure")
	}
}

func TestJoin(t *testing.T) {
	refused, late := &failure{"refused", "rndc thaw"}, &failure{"late", ""}
	publish := func(name string, err error) error { return cure.For("publishing", name, err) }
	hundred := make([]error, 100)
	for i := range hundred {
		hundred[i] = publish(fmt.Sprintf("h%02d", i), &failure{"refused", "rndc thaw"}) // another value each time
	}
	tests := []struct {
		name string
		errs []error
		want string
	}{
		{"one stays itself", []error{nil, late}, "late"},
		{"the same error is said once", []error{late, late}, "late"},
		{"one cause for two names is said once", []error{publish("a", refused), publish("b", refused)}, "publishing a, b: refused"},
		{"a name is said once", []error{publish("a", refused), publish("a", refused)}, "publishing a: refused"},
		{"other causes stay apart", []error{publish("a", refused), publish("b", late), publish("c", refused)}, "publishing a, c: refused; publishing b: late"},
		{"other work stays apart", []error{publish("a", refused), cure.For("removing", "a", refused)}, "publishing a: refused; removing a: refused"},
		{"one cause for a hundred names", hundred, "publishing h00, h01, h02 and 97 more: refused"},
		{"joined errors are joined by cause again", []error{cure.Join(publish("a", refused), late), publish("b", refused)}, "publishing a, b: refused; late"},
		{"a wrapped pair stays one error", []error{late, fmt.Errorf("zone: %w", cure.Join(late, refused))}, "late; zone: late; refused"},
		{"of many causes the first are said", []error{errors.New("a"), errors.New("b"), errors.New("c"), errors.New("d"), errors.New("e")}, "a; b; c; and 2 more"},
	}
	for _, tt := range tests {
		err := cure.Join(tt.errs...)
		if err.Error() != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, err, tt.want)
		}
		for _, each := range tt.errs {
			for _, cause := range []error{refused, late} {
				if errors.Is(each, cause) && !errors.Is(err, cause) {
					t.Errorf("%s: %v is lost", tt.name, cause)
				}
			}
		}
	}
	if cure.Join(nil, nil) != nil {
		t.Error("nothing joined is an error")
	}
	if parts := cure.Parts(fmt.Errorf("%w, then %w", refused, late)); len(parts) != 1 {
		t.Errorf("an error with a text of its own has the parts %v", parts)
	}
	if parts := cure.Parts(cure.Join(refused, errors.Join(late, fs.ErrExist))); len(parts) != 3 {
		t.Errorf("parts: %v", parts)
	}
}

// TestJoinKeepsItsArguments shows that Join changes none of the errors that it was given.
func TestJoinKeepsItsArguments(t *testing.T) {
	cause := errors.New("refused")
	a, b := cure.For("publishing", "a", cause), cure.For("publishing", "b", cause)
	pair := cure.Join(a, errors.New("late"))
	_ = cure.Join(pair, b)
	if got := pair.Error(); got != "publishing a: refused; late" {
		t.Errorf("a joined error changed to %q", got)
	}
}
