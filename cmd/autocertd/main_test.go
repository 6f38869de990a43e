package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"autocertd/internal/testbed/hostile"
)

// TestMain makes the test binary stand in for the program: a copy called autocertd comes first in the path, so that
// tests and scripts run it as its users do, in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"autocertd": main, "hostileca": hostile.Main})
}
