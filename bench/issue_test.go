//go:build linux

package bench_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

const (
	concurrency = 16  // orders at a time, on both sides; the program's default
	many        = 200 // certificates of a first roll-out
	singles     = 10  // certificates in a round of BenchmarkOne
)

// BenchmarkOne gets single certificates: the program from the start of its process to its end, when the files are on
// disk and the record is removed; the bare protocol from its first connection to the same moment. Both have an account.
func BenchmarkOne(b *testing.B) {
	w, binary := newWorld(b, diskDir(b)), build(b)
	runProgram(b, binary, "-c", w.config(b, "one", hosts("first", 1)), "renew") // makes the account
	plain := w.newBare(b)

	var theirs, ours, cpu sample[time.Duration]
	var memory sample[int64]
	for i := 0; b.Loop(); i++ {
		hostnames := hosts("one-"+strconv.Itoa(i), singles)
		config := w.config(b, "one", hostnames) // the state directory, with the account in it, stays
		for _, name := range hostnames {
			plain.connect(w)
			theirs = append(theirs, timed(func() { plain.obtainAll(b, []string{"bare-" + name}) }))
			c := runProgram(b, binary, "-c", config, "renew", name)
			ours, cpu, memory = append(ours, c.wall), append(cpu, c.cpu), append(memory, c.memory)
		}
		w.issued(b, config, hostnames)
	}
	w.clean(b)

	b.ReportMetric(0, "ns/op")
	b.ReportMetric(theirs.best().Seconds()*1e3, "bare-ms")
	b.ReportMetric(ours.best().Seconds()*1e3, "ours-ms")
	b.ReportMetric(float64(ours.best())/float64(theirs.best()), "ratio")
	t := table{title: fmt.Sprintf("one certificate, %d times", len(ours)),
		header: []string{"", "bare protocol", "autocertd renew NAME", "ratio", "target"}}
	t.add("time, best", millis(theirs.best()), millis(ours.best()), ratio(ours.best(), theirs.best()), "100 ms")
	t.add("time, median", millis(theirs.median()), millis(ours.median()), ratio(ours.median(), theirs.median()))
	t.add("CPU, best", "", millis(cpu.best()))
	t.add("memory, median", "", mebi(memory.median()))
	t.log(b)
}

// BenchmarkMany gets certificates for 200 new hostnames at once, the two sides in turn. Both have an account. The bare
// protocol keeps nothing on disk, so the program is measured twice: with its state in memory, which compares the protocol,
// and on a disk, which shows what it costs to lose nothing.
func BenchmarkMany(b *testing.B) {
	b.Run("disk", func(b *testing.B) { benchmarkMany(b, diskDir(b)) })
	b.Run("memory", func(b *testing.B) { benchmarkMany(b, memoryDir(b)) })
}

func benchmarkMany(b *testing.B, dir string) {
	w, binary := newWorld(b, dir), build(b)
	runProgram(b, binary, "-c", w.config(b, "many", hosts("first", 1)), "renew") // makes the account
	plain := w.newBare(b)
	var theirs, ours, cpu sample[time.Duration]
	var memory sample[int64]
	var theirUpdates, ourUpdates sample[int]
	for i := 0; b.Loop(); i++ {
		bare := func() {
			plain.connect(w)
			theirUpdates = append(theirUpdates, w.updates(b, func() {
				theirs = append(theirs, timed(func() { plain.obtainAll(b, hosts("bare-"+strconv.Itoa(i), many)) }))
			}))
		}
		if i%2 == 0 {
			bare()
		}
		hostnames := hosts("many-"+strconv.Itoa(i), many)
		config := w.config(b, "many", hostnames) // the state directory, with the account in it, stays
		var c cost
		ourUpdates = append(ourUpdates, w.updates(b, func() { c = runProgram(b, binary, "-c", config, "renew") }))
		ours, cpu, memory = append(ours, c.wall), append(cpu, c.cpu/many), append(memory, c.memory)
		if i%2 == 1 {
			bare()
		}
		w.issued(b, config, hostnames)
	}
	fsyncs := w.fsyncsPerCertificate(b, binary)
	w.clean(b)

	b.ReportMetric(0, "ns/op")
	b.ReportMetric(theirs.best().Seconds(), "bare-s")
	b.ReportMetric(ours.best().Seconds(), "ours-s")
	b.ReportMetric(float64(ours.best())/float64(theirs.best()), "ratio")
	b.ReportMetric(cpu.best().Seconds()*1e3, "cpu-ms/cert")
	b.ReportMetric(float64(memory.median())/(1<<20), "MiB")
	t := table{title: fmt.Sprintf("%d certificates, %d at a time, %d times", many, concurrency, len(ours)),
		header: []string{"", "bare protocol", "autocertd renew", "ratio", "target"}}
	t.add("time, best", millis(theirs.best()), millis(ours.best()), ratio(ours.best(), theirs.best()), "ratio 1")
	t.add("time, median", millis(theirs.median()), millis(ours.median()), ratio(ours.median(), theirs.median()))
	t.add("CPU per certificate, best", "", millis(cpu.best()), "", "10 ms")
	t.add("CPU per certificate, median", "", millis(cpu.median()))
	t.add("memory, median", "", mebi(memory.median()), "", "40 MiB")
	t.add("DNS updates, median", strconv.Itoa(theirUpdates.median()), strconv.Itoa(ourUpdates.median()), "", "40")
	t.add("fsyncs per certificate", "", fsyncs)
	t.log(b)
}

// fsyncsPerCertificate counts in a run of its own, since the counting is slow.
func (w *world) fsyncsPerCertificate(b *testing.B, binary string) string {
	b.Helper()
	config := w.config(b, "fsyncs", hosts("fsyncs", many))
	n, ok := countFsyncs(b, binary, "-c", config, "renew")
	if !ok {
		return "unknown: no strace"
	}
	b.ReportMetric(float64(n)/many, "fsyncs/cert")
	return fmt.Sprintf("%.1f", float64(n)/many)
}
