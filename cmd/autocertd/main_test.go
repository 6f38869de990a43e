package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"autocertd/internal/event"
	"autocertd/internal/testbed/hostile"
)

// TestMain makes the test binary stand in for the program: a copy called autocertd comes first in the path, so that
// tests and scripts run it as its users do, in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(tests{m}, map[string]func(){"autocertd": main, "hostileca": hostile.Main})
}

const (
	notYet       = "not yet provoked"
	journalAlone = "a command logs it to the journal alone, since it says the same to the person"
)

// unprovoked are the kinds of events that no test here wants from a process, and why.
var unprovoked = map[event.Kind]string{
	event.StillWorking:          notYet,
	event.NotLookedAt:           notYet,
	event.KeyUnknown:            notYet,
	event.KeyRefused:            notYet,
	event.NoRenewalInfo:         notYet,
	event.BundleUnreadable:      notYet,
	event.OrderNotDropped:       notYet,
	event.OrderNotCounted:       notYet,
	event.KeyNotMarked:          notYet,
	event.RolloverUnfinished:    notYet,
	event.ContactRefused:        notYet,
	event.ContactNotSent:        notYet,
	event.OrderGivenUp:          notYet,
	event.OrderWithoutKey:       notYet,
	event.OrderSenseless:        notYet,
	event.ValidationEndless:     notYet,
	event.ChainNotOffered:       notYet,
	event.RecordsAwaited:        notYet,
	event.RecordsNotRemoved:     notYet,
	event.RecordsOfNoProvider:   notYet,
	event.RecordsGivenUp:        notYet,
	event.OrdersUnknown:         notYet,
	event.JournalPartUnusable:   notYet,
	event.JournalEntryDamaged:   notYet,
	event.JournalEntryUndeleted: notYet,
	event.ProgramSays:           notYet,
	event.LockLost:              notYet,
	event.ClockWentBack:         notYet,
	event.NotScheduled:          notYet,

	event.Forgotten:            journalAlone,
	event.Revoked:              journalAlone,
	event.AccountKeyChanged:    journalAlone,
	event.AccountDeactivated:   journalAlone,
	event.SignaturesUnverified: "it takes a server of Samba",
	event.UnitReloaded:         "it takes systemd",
	event.UnitNotRunning:       "it takes systemd",
	event.Panic:                "no input is known that makes one",
}

// tests want each kind of event in the log of a process, when all of them ran.
type tests struct{ *testing.M }

// Run implements testscript.TestingM.
func (m tests) Run() int {
	status := m.M.Run()
	filtered := testing.Short()
	for _, name := range []string{"run", "skip", "fuzz", "list"} {
		filtered = filtered || flag.Lookup("test."+name).Value.String() != ""
	}
	if status != 0 || filtered {
		return status
	}
	for _, kind := range event.Kinds() {
		seen := false
		logged.Range(func(message, _ any) bool { // some go on with what is used instead
			seen = seen || strings.HasPrefix(message.(string), string(kind))
			return true
		})
		switch reason := unprovoked[kind]; {
		case !seen && reason == "":
			fmt.Printf("no test makes a process log %q\n", kind)
			status = 1
		case seen && reason == notYet:
			fmt.Printf("%q is logged, and needs no exception\n", kind)
		}
	}
	return status
}

var (
	logged  sync.Map // messages that processes logged
	message = regexp.MustCompile(`(?:\bmsg=|"msg":)("(?:[^"\\]|\\.)*"|\S+)`)
)

// note takes the messages of the log from what a process wrote.
func note(text string) {
	for _, found := range message.FindAllStringSubmatch(text, -1) {
		kind := found[1]
		if unquoted, err := strconv.Unquote(kind); err == nil {
			kind = unquoted
		} else if json.Unmarshal([]byte(kind), &kind) != nil {
			kind = found[1]
		}
		logged.Store(kind, true)
	}
}

// scriptT runs scripts as testscript.Run does, but that all of what they wrote is noted.
type scriptT struct{ *testing.T }

// Run implements testscript.T.
func (t scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

// Log implements testscript.T.
func (t scriptT) Log(args ...any) {
	note(fmt.Sprint(args...))
	t.T.Log(args...)
}

// Verbose makes testscript keep the output of steps that succeeded.
func (scriptT) Verbose() bool { return true }
