//go:build linux

package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// profileEnv names the folder that profiles go to. Without it the binary is the one that users get.
const profileEnv = "AUTOCERTD_PROFILE"

// build makes the binary as the Makefile does, and returns its path.
func build(b *testing.B) string {
	b.Helper()
	args := []string{"build", "-trimpath"}
	binary := filepath.Join(b.TempDir(), "autocertd")
	if dir := os.Getenv(profileEnv); dir != "" {
		check(b, os.MkdirAll(dir, 0o755))
		args = append(args, "-overlay", profilerOverlay(b))
		binary = filepath.Join(dir, "autocertd")
	}
	cmd := exec.CommandContext(b.Context(), "go", append(args, "-o", binary, "autocertd/cmd/autocertd")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// profilerOverlay puts the profiler around the main function, for one build, without a trace of it in the product.
func profilerOverlay(b *testing.B) string {
	b.Helper()
	main, err := filepath.Abs("../cmd/autocertd/main.go")
	if err != nil {
		b.Fatal(err)
	}
	source, err := os.ReadFile(main)
	if err != nil {
		b.Fatal(err)
	}
	changed := strings.Replace(string(source), "os.Exit(run(os.Args[1:]))", "os.Exit(profiled(os.Args[1:]))", 1)
	if changed == string(source) {
		b.Fatal("main has another form: the profiler doesn't know where to begin")
	}
	profiler, err := filepath.Abs("testdata/profiled.go")
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	copied, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	data, err := json.Marshal(map[string]map[string]string{"Replace": {
		main: copied,
		filepath.Join(filepath.Dir(main), "profiled.go"): profiler,
	}})
	if err := errors.Join(err, os.WriteFile(copied, []byte(changed), 0o600), os.WriteFile(overlay, data, 0o600)); err != nil {
		b.Fatal(err)
	}
	return overlay
}

// cost is what one run of a program took.
type cost struct {
	wall   time.Duration // from its start to its end
	cpu    time.Duration // in user and in system mode
	memory int64         // bytes that were resident at most
}

// runProgram runs the program to its end, which must be a success.
func runProgram(b *testing.B, name string, args ...string) cost {
	b.Helper()
	var output bytes.Buffer
	cmd := exec.CommandContext(b.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	peak := make(chan int64)
	go func() { peak <- watchPeak(ctx, cmd.Process.Pid) }()
	err := cmd.Wait()
	c := cost{wall: time.Since(begin)}
	cancel()
	c.memory = <-peak
	if err != nil {
		b.Fatalf("%s: %v\n%s", filepath.Base(name), err, output.Bytes())
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return c
}

// watchPeak looks every few milliseconds how much memory a process has had at most, until ctx ends. The rusage of a
// child doesn't tell: Linux counts the memory of the parent in, since the child shares it until it executes.
func watchPeak(ctx context.Context, pid int) (peak int64) {
	const interval = 5 * time.Millisecond
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return peak
		case <-ticker.C:
			peak = max(peak, memory(pid, "VmHWM"))
		}
	}
}

// memory reads one of the sizes in /proc/PID/status, in bytes; 0 when the process has ended.
func memory(pid int, field string) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// countFsyncs runs the program once more, slowly, under strace. It reports false where strace is missing or not allowed.
func countFsyncs(b *testing.B, name string, args ...string) (int, bool) {
	b.Helper()
	if exec.CommandContext(b.Context(), "strace", "-f", "true").Run() != nil {
		return 0, false
	}
	trace := filepath.Join(b.TempDir(), "trace")
	strace := []string{"-f", "-e", "trace=fsync,fdatasync,syncfs", "-e", "signal=none", "-o", trace, name}
	runProgram(b, "strace", append(strace, args...)...)
	data, err := os.ReadFile(trace)
	if err != nil {
		b.Fatal(err)
	}
	// A call that another thread interrupts has two lines; the second has no parenthesis after the name.
	return strings.Count(string(data), "fsync(") + strings.Count(string(data), "fdatasync(") + strings.Count(string(data), "syncfs("), true
}
