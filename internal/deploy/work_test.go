package deploy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var errBroken = errors.New("exit status 1")

// TestRetried lets reloads and runs fail, and looks at what the next pass does again: what failed, and everything after
// another change of the files.
func TestRetried(t *testing.T) {
	b := newBundle(t, host)
	o := Output{Dir: t.TempDir(), Reload: []string{"a.service", "b.service"}, Run: [][]string{{"push", "{name}"}, {"tell"}}}
	all := []string{"systemctl try-reload-or-restart a.service", "systemctl try-reload-or-restart b.service", "push " + host, "tell"}
	runner := &counter{Output: "it says why"}
	d := New(Config{Run: runner})
	var st State
	for _, row := range []struct {
		name    string
		fail    map[string]error
		runs    []string
		pending []string
	}{
		{"reload fails", map[string]error{"a.service": errBroken}, all, []string{"a.service is not reloaded after a change of " + o.Dir}},
		{"it fails again", map[string]error{"a.service": errBroken}, all[:1], []string{"a.service is not reloaded after a change of " + o.Dir}},
		{"the files are changed, and a run fails", map[string]error{"push": errBroken}, all, []string{"push has not succeeded after a change of " + o.Dir}},
		{"the files are changed, and both fail", map[string]error{"b.service": errBroken, "tell": errBroken}, all, []string{
			"b.service is not reloaded after a change of " + o.Dir, "tell has not succeeded after a change of " + o.Dir}},
		{"one of them fails", map[string]error{"tell": errBroken}, []string{all[1], all[3]}, []string{"tell has not succeeded after a change of " + o.Dir}},
		{"nothing fails", nil, all[3:], nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			runner.Fail = row.fail
			if strings.HasPrefix(row.name, "the files are changed") {
				if err := os.Remove(filepath.Join(o.Dir, "cert.pem")); err != nil {
					t.Fatal(err)
				}
			}
			res, err := d.Apply(t.Context(), b, []Output{o}, st)
			st = res.State
			wantDeployed(t, o, b)
			if got := runner.taken(); !slices.Equal(got, row.runs) {
				t.Errorf("ran %q, want %q", got, row.runs)
			}
			if !slices.Equal(res.Pending, row.pending) {
				t.Errorf("pending %q, want %q", res.Pending, row.pending)
			}
			if (err != nil) != (row.fail != nil) || (err != nil && !errors.Is(err, errBroken)) {
				t.Errorf("error %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "it says why") {
				t.Errorf("the error lacks the output: %v", err)
			}
			if finished(res, o) != (row.fail == nil) {
				t.Errorf("state %v", st)
			}
		})
	}
	apply(t, d, b, o, st)
	if got := runner.taken(); len(got) > 0 {
		t.Errorf("ran %q after success", got)
	}
}

// TestStopped has units that don't run: they aren't reloaded, and that is no failure.
func TestStopped(t *testing.T) {
	b := newBundle(t, host)
	for _, row := range []struct {
		name, state string
		reloaded    bool
	}{
		{"it runs", running, true},
		{"it reloads just now", "LoadState=loaded\nActiveState=reloading\n", true},
		{"it starts just now", "LoadState=loaded\nActiveState=activating\n", true},
		{"it is stopped", "LoadState=loaded\nActiveState=inactive\n", false},
		{"it has failed", "LoadState=loaded\nActiveState=failed\n", false},
		{"systemd doesn't know it, and says so at the reload", "LoadState=not-found\nActiveState=inactive\n", true},
		{"nobody can tell", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			runner := &counter{State: map[string]string{"nginx.service": row.state}}
			res := apply(t, New(Config{Run: runner}), b, Output{Dir: t.TempDir(), Reload: []string{"nginx.service"}}, nil)
			if got := len(runner.taken()) == 1; got != row.reloaded || (len(res.Reloaded) == 1) != row.reloaded || (len(res.Stopped) == 0) != row.reloaded {
				t.Errorf("asked to reload is %t; reloaded %q, stopped %q", got, res.Reloaded, res.Stopped)
			}
			if len(res.State) != 1 {
				t.Errorf("state %v, want it done", res.State)
			}
		})
	}
}

// TestMarks changes what has to happen while the files stay as they are.
func TestMarks(t *testing.T) {
	b := newBundle(t, host)
	o := Output{Dir: t.TempDir()}
	runner := &counter{}
	d := New(Config{Run: runner})
	st := apply(t, d, b, o, nil).State

	o.Reload = []string{"new.service"}
	before := snapshot(t, o.Dir)
	res := apply(t, d, b, o, maps.Clone(st))
	wantUntouched(t, o.Dir, before)
	if got := runner.taken(); len(got) != 1 {
		t.Errorf("ran %q, want the new reload", got)
	}
	apply(t, d, b, o, res.State)
	if got := runner.taken(); len(got) != 0 {
		t.Errorf("ran %q, want nothing", got)
	}
	apply(t, d, b, o, nil)
	if got := runner.taken(); len(got) != 1 {
		t.Errorf("ran %q after the state was lost, want one reload", got)
	}
}

// TestOnceForAllOutputs reloads a unit once for two outputs of a certificate.
func TestOnceForAllOutputs(t *testing.T) {
	b := newBundle(t, host)
	pem := Output{Dir: t.TempDir(), Reload: []string{"haproxy.service"}}
	both := Output{Dir: pem.Dir, Format: FormatCombined, Reload: pem.Reload}
	runner := &counter{}
	res, err := New(Config{Run: runner}).Apply(t.Context(), b, []Output{pem, both}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := runner.taken(); len(got) != 1 {
		t.Errorf("ran %q, want one reload", got)
	}
	if len(res.State) != 2 {
		t.Errorf("state %v", res.State)
	}
}

// TestEnvironment looks at what a real command is told.
func TestEnvironment(t *testing.T) {
	t.Setenv("AUTOCERTD_TEST_SECRET", "secret")
	for format, extra := range map[string][]string{
		FormatPEM:      {"CERT=DIR/cert.pem", "CHAIN=DIR/chain.pem", "FULLCHAIN=DIR/fullchain.pem", "KEY=DIR/privkey.pem"},
		FormatCombined: {"COMBINED=DIR/" + host + ".pem"},
	} {
		t.Run(format, func(t *testing.T) {
			b := newBundle(t, host)
			b.NotAfter = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
			dir, log := t.TempDir(), filepath.Join(t.TempDir(), "env")
			o := Output{Dir: filepath.Join(dir, "{name}"), Format: format,
				Run: [][]string{{"sh", "-c", `env > "$0"; echo "$1" >> "$0"`, log, "arg {name}; $(id)"}}}
			apply(t, New(Config{}), b, o, nil)
			got, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"NAME=" + host, "HOSTNAMES=" + host + " www." + host, "DIR=DIR", "NOT_AFTER=2030-01-02T03:04:05Z",
				"SERIAL=abc", "FINGERPRINT=" + b.Fingerprint}
			lines := []string{"arg " + host + "; $(id)"}
			for _, w := range append(want, extra...) {
				lines = append(lines, "AUTOCERTD_"+strings.ReplaceAll(w, "=DIR", "="+filepath.Join(dir, host)))
			}
			for _, key := range []string{"PATH", "HOME", "LANG"} {
				if value, ok := os.LookupEnv(key); ok {
					lines = append(lines, key+"="+value)
				}
			}
			var foreign []string
			for line := range strings.Lines(string(got)) {
				line = strings.TrimSpace(line)
				if i := slices.Index(lines, line); i >= 0 {
					lines = slices.Delete(lines, i, i+1)
				} else if key, _, _ := strings.Cut(line, "="); !slices.Contains([]string{"PWD", "_", "SHLVL", "OLDPWD"}, key) {
					foreign = append(foreign, line) // the shell sets the others itself
				}
			}
			if len(lines)+len(foreign) > 0 {
				t.Errorf("missing %q, foreign %q", lines, foreign)
			}
		})
	}
}

func TestRealProcesses(t *testing.T) {
	b := newBundle(t, host)
	long := `i=0; while [ $i -lt 2000 ]; do echo "line $i"; i=$((i+1)); done; printf '\033[31mlast\n' >&2; exit 3`
	for name, row := range map[string]struct {
		args  []string
		cause error
		words []string
	}{
		"fails":     {[]string{"sh", "-c", "echo out; echo err >&2; exit 7"}, nil, []string{"run sh", "exit status 7", "out\nerr"}},
		"absent":    {[]string{"/no/such/program"}, os.ErrNotExist, []string{"/no/such/program", "correct the path"}},
		"not found": {[]string{"no-such-program"}, exec.ErrNotFound, []string{"no-such-program", "no shell"}},
		"forbidden": {[]string{"/etc/passwd"}, os.ErrPermission, []string{"/etc/passwd", "may not execute"}},
		"empty":     {nil, errNoProgram, nil},
		"talkative": {[]string{"sh", "-c", long}, nil, []string{"exit status 3", "line 1999", "last"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := failure(t, New(Config{}), b, Output{Dir: t.TempDir(), Run: [][]string{row.args}}, row.cause, row.words...)
			if e.Step != StepRun || strings.Contains(e.Error(), "line 1 ") || strings.Contains(e.Error(), "\033") || len(e.Error()) > 5000 {
				t.Errorf("error at %s: %q", e.Step, e)
			}
		})
	}
}

// TestOutputIsBounded keeps only the end of what a process prints.
func TestOutputIsBounded(t *testing.T) {
	out, err := processes{}.Run(t.Context(), []string{"sh", "-c", "head -c 1000000 /dev/zero; printf end"}, baseEnv())
	if err != nil || len(out) != maxOutput || !strings.HasSuffix(string(out), "end") {
		t.Errorf("%d bytes (%v), want the last %d", len(out), err, maxOutput)
	}
}

// fifo makes a named pipe.
func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLeavesAChild runs a command that ends well while a child of it holds its output open.
func TestLeavesAChild(t *testing.T) {
	path := fifo(t)
	life, err := os.OpenFile(path, os.O_RDWR, 0) // the child lives until this is closed
	if err != nil {
		t.Fatal(err)
	}
	defer life.Close()
	o := Output{Dir: t.TempDir(), Run: [][]string{{"sh", "-c", `cat < "$0" &`, path}}}
	apply(t, New(Config{}), newBundle(t, host), o, nil)
}

// TestKilled ends a command that has a child. Both hold a pipe open, which says when the last of them is gone.
func TestKilled(t *testing.T) {
	path := fifo(t)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := processes{}.Run(ctx, []string{"sh", "-c", `exec 3> "$0"; sleep 1000 & echo started >&3; wait`, path}, baseEnv())
		result <- err
	}()
	pipe, err := os.Open(path) // waits for the command
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r := bufio.NewReader(pipe)
	if line, err := r.ReadString('\n'); line != "started\n" {
		t.Fatalf("the command said %q (%v)", line, err)
	}
	cancel()
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 { // hangs as long as one of them lives
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-result; err == nil {
		t.Error("a killed command succeeded")
	}
}

// TestTimeout gives a command less time than it takes.
func TestTimeout(t *testing.T) {
	o := Output{Dir: t.TempDir(), Run: [][]string{{"sleep", "1000"}}}
	failure(t, New(Config{Timeout: 10 * time.Millisecond}), newBundle(t, host), o, context.DeadlineExceeded, "run sleep", "within 10ms")
}

func TestReloadCures(t *testing.T) {
	for output, cure := range map[string]string{
		"Failed to try-reload-or-restart nginx.service: Interactive authentication required.\nSee system logs": `sed -i 's/var units = \[/&"nginx.service", /' /etc/polkit-1/rules.d/50-autocertd.rules`,
		"Failed to try-reload-or-restart nginx.service: Access denied":                                         "/usr/share/doc/autocertd/autocertd.rules /etc/polkit-1/rules.d/50-autocertd.rules",
		"Failed to try-reload-or-restart nginx.service: Unit nginx.service not found.":                         "list-unit-files '*ngi*'",
		"System has not been booted with systemd as init system (PID 1). Can't operate.":                       "use run",
		"Job for nginx.service failed.\nSee \"systemctl status nginx.service\"":                                "journalctl -n 20 -u nginx.service",
		"something else": "",
	} {
		runner := &counter{Fail: map[string]error{"nginx.service": errBroken}, Output: output}
		e := failure(t, New(Config{Run: runner}), newBundle(t, host), Output{Dir: t.TempDir(), Reload: []string{"nginx.service"}}, errBroken,
			"reload nginx.service", "exit status 1", strings.Split(output, "\n")[0])
		if !strings.Contains(e.Cure(), cure) || (cure == "" && e.Cure() != "") {
			t.Errorf("%q: cure %q, want %q", output, e.Cure(), cure)
		}
	}
	runner := &counter{Fail: map[string]error{"ngnix.service": errBroken}, Output: "Failed to try-reload-or-restart ngnix.service: Interactive authentication required.",
		State: map[string]string{"ngnix.service": "LoadState=not-found\nActiveState=inactive\n"}}
	o := Output{Dir: t.TempDir(), Reload: []string{"ngnix.service"}}
	if e := failure(t, New(Config{Run: runner}), newBundle(t, host), o, errUnknownUnit, "systemd knows no unit ngnix.service", "list-unit-files '*ngn*'"); strings.Contains(e.Error(), "polkit") {
		t.Errorf("%q sends to polkit for a unit that doesn't exist", e)
	}
	t.Setenv("PATH", t.TempDir())
	o = Output{Dir: t.TempDir(), Reload: []string{"nginx.service"}}
	failure(t, New(Config{}), newBundle(t, host), o, exec.ErrNotFound, "systemctl", "isn't installed")
	o = Output{Dir: t.TempDir(), Reload: []string{"--now"}}
	failure(t, New(Config{}), newBundle(t, host), o, errUnitName)
}

// gate is a Runner that lets each process through by hand.
type gate struct {
	Begun   chan string
	Release chan error
}

func (g *gate) Run(ctx context.Context, args, _ []string) ([]byte, error) {
	if isShow(args) {
		return []byte(running), nil
	}
	g.Begun <- args[len(args)-1]
	select {
	case err := <-g.Release:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestShared renews 200 certificates while a reload of their unit runs: all of them are served by the next one.
func TestShared(t *testing.T) {
	base := newBundle(t, host)
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{Begun: make(chan string), Release: make(chan error)}
		d := New(Config{Run: g})
		deploy := func(i int) error {
			b := base
			b.Name = fmt.Sprint(i)
			_, err := d.Apply(t.Context(), b, []Output{{Dir: filepath.Join(root, "{name}"), Reload: []string{"nginx.service"}}}, nil)
			return err
		}
		var first error
		var wg sync.WaitGroup
		wg.Go(func() { first = deploy(0) })
		<-g.Begun

		errs := make([]error, 200)
		for i := range errs {
			wg.Go(func() { errs[i] = deploy(i + 1) })
		}
		time.Sleep(10 * time.Second)
		synctest.Wait() // all wait for the second reload, whose turn hasn't come
		g.Release <- nil
		<-g.Begun
		for i := range errs { // it began after all of these were in place
			if _, err := os.Stat(filepath.Join(root, fmt.Sprint(i+1), "privkey.pem")); err != nil {
				t.Error(err)
			}
		}
		g.Release <- errBroken
		wg.Wait() // a third reload would hang here, and be found as a deadlock

		if first != nil {
			t.Errorf("the first was told of another's reload: %v", first)
		}
		for i, err := range errs {
			if !errors.Is(err, errBroken) {
				t.Errorf("%d was told %v, want the failure of the reload that it shared", i, err)
			}
		}
	})
}

// TestSharedLeaving cancels some of those who wait: the others still get their reload.
func TestSharedLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u units
		begun, release := make(chan struct{}), make(chan struct{})
		reload := func(ctx context.Context) error {
			begun <- struct{}{}
			<-release
			return ctx.Err()
		}
		results := map[string]chan error{}
		ctx, cancel := context.WithCancel(t.Context())
		start := func(name string, ctx context.Context) {
			results[name] = make(chan error, 1)
			go func() { results[name] <- u.share(ctx, "unit", reload) }()
			synctest.Wait()
		}
		start("running", t.Context())
		<-begun
		start("first in the queue, leaves", ctx)
		start("second in the queue, leaves", ctx)
		start("third in the queue", t.Context())
		cancel()
		if err := <-results["second in the queue, leaves"]; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		release <- struct{}{}
		<-begun
		start("too late for the second", t.Context())
		release <- struct{}{}
		<-begun
		release <- struct{}{}
		for _, name := range []string{"running", "first in the queue, leaves", "third in the queue", "too late for the second"} {
			if err := <-results[name]; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestReloadTimeout lets a unit hang: everybody is told, and the next reload has its chance.
func TestReloadTimeout(t *testing.T) {
	b := newBundle(t, host)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		g := &gate{Begun: make(chan string, 2), Release: make(chan error, 1)}
		d := New(Config{Run: g})
		o := Output{Dir: dir, Reload: []string{"slow.service"}}
		start := time.Now()
		failure(t, d, b, o, context.DeadlineExceeded, "within 1m0s")
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
		g.Release <- nil
		apply(t, d, b, o, nil)
	})
}

// TestCancelled stops before anything begins.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	res, err := New(Config{}).Apply(ctx, newBundle(t, host), []Output{{Dir: dir}}, nil)
	if !errors.Is(err, context.Canceled) || len(res.Pending) != 1 {
		t.Errorf("error %v, pending %q", err, res.Pending)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("wrote %v", entries)
	}
}
