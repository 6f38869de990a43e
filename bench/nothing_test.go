//go:build linux

package bench_test

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkNothingDue runs renew on 200 certificates, none of which is due and all of whose files are there.
func BenchmarkNothingDue(b *testing.B) {
	const certificates = 200
	binary, dir := build(b), diskDir(b)
	config := writeConfig(b, dir, hosts("idle", certificates), nobody)
	writeStates(b, config, true)
	runProgram(b, binary, "-c", config, "renew") // writes the files

	var wall, cpu sample[time.Duration]
	for b.Loop() {
		for range 10 {
			c := runProgram(b, binary, "-c", config, "renew")
			wall, cpu = append(wall, c.wall), append(cpu, c.cpu)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(wall.best().Seconds()*1e3, "ms")
	b.ReportMetric(cpu.best().Seconds()*1e3, "cpu-ms")
	t := table{title: fmt.Sprintf("%d certificates, none due, %d runs", certificates, len(wall)),
		header: []string{"autocertd renew", "best", "median", "target"}}
	t.add("from start to end", millis(wall.best()), millis(wall.median()), "30 ms")
	t.add("CPU", millis(cpu.best()), millis(cpu.median()))
	t.log(b)
}
