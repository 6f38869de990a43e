//go:build linux

package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const ticks = 20 // over which CPU is measured

// nobody is a configuration of servers that don't exist.
const nobody = `
[ca.nobody]
directory    = "https://127.0.0.1:1/dir"
accept_terms = true

[provider.nobody]
type     = "rfc2136"
server   = "127.0.0.1:1"
key_name = "nobody"
key      = "bm9ib2R5"
`

// BenchmarkRest starts the daemon on the state of many certificates, none of which is due, and lets it tick. The servers that
// it is configured for don't exist: it must not need them.
func BenchmarkRest(b *testing.B) {
	b.Run("20000", func(b *testing.B) { rest(b, 20_000, true, 1000*time.Microsecond) })
	b.Run("100000", func(b *testing.B) { rest(b, 100_000, false, 5000*time.Microsecond) }) // bundles aren't read at rest
}

func rest(b *testing.B, resting int, bundles bool, target time.Duration) {
	binary, dir := build(b), diskDir(b)
	output := fmt.Sprintf("\n[[output]]\ndir = %q\n", filepath.Join(memoryDir(b), "{name}")) // whose disk isn't measured
	config := writeConfig(b, dir, hosts("idle", resting), "schedule = \"@every 1s\"\n"+nobody+output)
	writeStates(b, config, bundles)

	var ready, startCPU, tick sample[time.Duration]
	var atReady, later, peak sample[int64]
	for b.Loop() {
		d := startDaemon(b, binary, config)
		ready = append(ready, d.await("READY=1").Sub(d.begin))
		startCPU, atReady = append(startCPU, d.cpu()), append(atReady, memory(d.pid, "VmRSS"))
		d.awaitTicks(60) // what the start has left to do is done, such as a first look at all files
		before := d.cpu()
		d.awaitTicks(ticks)
		tick = append(tick, (d.cpu()-before)/ticks)
		later, peak = append(later, memory(d.pid, "VmRSS")), append(peak, memory(d.pid, "VmHWM"))
		d.stop()
	}
	looked, err := filepath.Glob(filepath.Join(stateDir(dir), "locks", "certificate-*"))
	if err != nil || len(looked) > 0 {
		b.Fatalf("the daemon looked at %d certificates (%v), and none was due", len(looked), err)
	}

	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ready.best().Seconds()*1e3, "ready-ms")
	b.ReportMetric(float64(tick.best().Microseconds()), "cpu-µs/tick")
	b.ReportMetric(float64(later.median())/(1<<20), "MiB")
	t := table{title: fmt.Sprintf("%d certificates, none due, %d starts, %d ticks each", resting, len(ready), ticks),
		header: []string{"autocertd run", "best", "median", "target"}}
	t.add("start to ready", millis(ready.best()), millis(ready.median()), fmt.Sprint(resting/10, " ms"))
	t.add("CPU from start to ready", millis(startCPU.best()), millis(startCPU.median()))
	t.add("memory when ready", mebi(atReady.best()), mebi(atReady.median()), fmt.Sprint(resting*150/20_000, " MiB"))
	t.add("memory after ticks", mebi(later.best()), mebi(later.median()), fmt.Sprint(resting*150/20_000, " MiB"))
	t.add("memory at most", mebi(peak.best()), mebi(peak.median()))
	t.add("CPU per tick", micros(tick.best()), micros(tick.median()), micros(target))
	t.log(b)
}

// daemonProcess is a running daemon, listened to as systemd would.
type daemonProcess struct {
	b      *testing.B
	cmd    *exec.Cmd
	pid    int
	begin  time.Time
	output bytes.Buffer
	notify *net.UnixConn
}

func startDaemon(b *testing.B, binary, config string) *daemonProcess {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	check(b, err)
	b.Cleanup(func() { _ = notify.Close() })
	d := &daemonProcess{b: b, notify: notify}
	d.cmd = exec.CommandContext(b.Context(), binary, "-c", config, "run") // killed if the benchmark fails
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	d.begin = time.Now()
	check(b, d.cmd.Start())
	d.pid = d.cmd.Process.Pid
	return d
}

// await returns when the daemon told systemd something that begins with the words.
func (d *daemonProcess) await(words string) time.Time {
	d.b.Helper()
	check(d.b, d.notify.SetReadDeadline(time.Now().Add(5*time.Minute)))
	message := make([]byte, 4096)
	for {
		n, err := d.notify.Read(message)
		if err != nil {
			err = errors.Join(err, d.cmd.Process.Kill(), d.cmd.Wait())
			d.b.Fatalf("the daemon doesn't say %s: %v\n%s", words, err, d.output.Bytes())
		}
		if strings.HasPrefix(string(message[:n]), words) {
			return time.Now()
		}
	}
}

// awaitTicks returns at the end of the nth tick from now on: each tells its status.
func (d *daemonProcess) awaitTicks(n int) {
	d.b.Helper()
	for range n {
		d.await("STATUS=")
	}
}

// cpu returns the CPU time that the daemon has taken so far, to the nanosecond; /proc counts in steps of 10 ms.
func (d *daemonProcess) cpu() time.Duration {
	d.b.Helper()
	const scheduled = 2 // CPUCLOCK_SCHED, of the clocks that a process has; see clock_getcpuclockid(3)
	var used unix.Timespec
	check(d.b, unix.ClockGettime(int32(^d.pid)<<3|scheduled, &used))
	return time.Duration(used.Nano())
}

func (d *daemonProcess) stop() {
	d.b.Helper()
	check(d.b, d.cmd.Process.Signal(syscall.SIGTERM))
	if err := d.cmd.Wait(); err != nil {
		d.b.Fatalf("%v\n%s", err, d.output.Bytes())
	}
}
