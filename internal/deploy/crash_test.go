package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// scene is a deployment that is interrupted, as the child process is told it.
type scene struct {
	Bundle Bundle
	Output Output
	State  State
	Log    string // a line for each reload that found the right files
	Step   int    // the change before which to stop; reloads count too
}

// stage is a scene's runner and disk. Before the given step it calls stop.
type stage struct {
	scene
	stop func() error
	n    int
}

func (s *stage) step() error {
	s.n++
	if s.n == s.Step {
		return s.stop()
	}
	return nil
}

// Run stands for the service: it reads its files at this moment. It can be stopped before and after that.
func (s *stage) Run(_ context.Context, args, _ []string) ([]byte, error) {
	if isShow(args) {
		return []byte(running), nil
	}
	if err := s.step(); err != nil {
		return nil, err
	}
	path, want := filepath.Join(s.Output.Dir, "privkey.pem"), string(s.Bundle.Key)
	if s.Output.Format == FormatCombined {
		path = filepath.Join(s.Output.Dir, s.Output.file(s.Bundle.Name))
		want = string(joinPEM(s.Bundle.Leaf, s.Bundle.Chain, s.Bundle.Key))
	}
	line := "old\n"
	if got, err := os.ReadFile(path); err == nil && string(got) == want {
		line = "new\n"
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if _, err := log.WriteString(line); err != nil {
		return nil, err
	}
	return nil, s.step()
}

func (s *stage) deployer() *Deployer {
	d := New(Config{Run: s})
	d.disk.before = func(_, _ string) error { return s.step() }
	return d
}

const sceneVariable = "DEPLOY_TEST_SCENE"

// TestMain turns the test binary into the child that dies.
func TestMain(m *testing.M) {
	if path := os.Getenv(sceneVariable); path != "" {
		os.Exit(child(path))
	}
	os.Exit(m.Run())
}

func child(path string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	var s stage
	if err := json.Unmarshal(data, &s.scene); err != nil {
		fmt.Println(err)
		return 2
	}
	s.stop = func() error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return err
		}
		select {}
	}
	if _, err := s.deployer().Apply(context.Background(), s.Bundle, []Output{s.Output}, s.State); err != nil {
		fmt.Println(err)
		return 2
	}
	return 0
}

// interruptions are the ways in which a deployment stops at a step. Each reports whether it got there.
var interruptions = map[string]func(t *testing.T, s scene) bool{
	"killed": func(t *testing.T, s scene) bool {
		path := filepath.Join(t.TempDir(), "scene")
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), sceneVariable+"="+path)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return false
		}
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("the child failed: %v\n%s", err, out)
		}
		return true
	},
	"failed": func(t *testing.T, s scene) bool {
		st := stage{scene: s, stop: func() error { return syscall.EIO }}
		res, err := st.deployer().Apply(t.Context(), s.Bundle, []Output{s.Output}, s.State)
		if st.n < s.Step {
			if err != nil {
				t.Fatal(err)
			}
			return false
		}
		if !errors.Is(err, syscall.EIO) || len(res.Pending) == 0 {
			t.Errorf("error %v, pending %q; want an EIO and something pending", err, res.Pending)
		}
		return true
	},
}

// TestInterrupted stops a deployment at every single step, twice: the process dies, and the step fails. In each case the
// next pass must bring the right files, and a reload must have seen them after the last change.
func TestInterrupted(t *testing.T) {
	old, wanted := newBundle(t, host), newBundle(t, host)
	before := map[string]func(t *testing.T, s *scene, key string){
		"fresh": func(t *testing.T, s *scene, _ string) {
			if err := os.RemoveAll(s.Output.Dir); err != nil {
				t.Fatal(err)
			}
		},
		"renewed": func(t *testing.T, s *scene, _ string) {
			s.State = apply(t, New(Config{Run: &counter{}}), old, s.Output, nil).State
		},
		// Here the stored state can't tell that there is anything to reload: it says that all is done.
		"repaired": func(t *testing.T, s *scene, key string) {
			s.State = apply(t, New(Config{Run: &counter{}}), wanted, s.Output, nil).State
			if err := os.Truncate(filepath.Join(s.Output.Dir, key), 3); err != nil {
				t.Fatal(err)
			}
		},
	}
	for how, interrupt := range interruptions {
		for format := range formats("") {
			for when, prepare := range before {
				t.Run(strings.Join([]string{how, format, when}, "/"), func(t *testing.T) {
					for step := 1; ; step++ {
						f := formats(filepath.Join(t.TempDir(), "certs"))[format]
						s := scene{Bundle: wanted, Output: f.out, Log: filepath.Join(t.TempDir(), "log"), Step: step}
						prepare(t, &s, f.key)
						stopped := interrupt(t, s)
						t.Run(strconv.Itoa(step), func(t *testing.T) { heal(t, s) })
						if !stopped {
							break
						}
					}
				})
			}
		}
	}
}

// heal runs the next pass, which knows nothing but the state from before the interruption, and another that finds no work.
func heal(t *testing.T, s scene) {
	s.Step = 0
	next := &stage{scene: s}
	res := apply(t, next.deployer(), s.Bundle, s.Output, s.State)
	wantDeployed(t, s.Output, s.Bundle)
	wantClean(t, s.Output.Dir)
	log, err := os.ReadFile(s.Log)
	if err != nil || !strings.HasSuffix(string(log), "new\n") || strings.Contains(string(log), "old") {
		t.Errorf("the reloads saw %q (%v), want the new files last and never others", log, err)
	}
	snap := snapshot(t, s.Output.Dir)
	apply(t, next.deployer(), s.Bundle, s.Output, res.State)
	wantUntouched(t, s.Output.Dir, snap)
}
