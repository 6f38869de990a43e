package deploy

import (
	"path/filepath"
	"strconv"
	"testing"
)

// BenchmarkUnchanged is the look at a certificate whose files are right, as it happens all the time.
func BenchmarkUnchanged(b *testing.B) {
	for format, f := range formats(filepath.Join(b.TempDir(), "certs")) {
		b.Run(format, func(b *testing.B) {
			d, bundle := New(Config{Run: &counter{}}), newBundle(b, host)
			f.out.Group = "root"
			st := apply(b, d, bundle, f.out, nil).State
			d.disk.before = func(op, path string) error {
				b.Fatalf("%s %s", op, path)
				return nil
			}
			b.ReportAllocs()
			for b.Loop() {
				apply(b, d, bundle, f.out, st)
			}
		})
	}
}

// BenchmarkDeploy writes new certificates and renewed ones, and counts what is waited for: fsync.
func BenchmarkDeploy(b *testing.B) {
	for format := range formats("") {
		for _, what := range []string{"fresh", "renewed"} {
			b.Run(format+"/"+what, func(b *testing.B) {
				root := b.TempDir()
				o := formats(filepath.Join(root, "{name}"))[format].out
				o.File = ""
				bundles := []Bundle{newBundle(b, host), newBundle(b, host)}
				d := New(Config{Run: &counter{}})
				apply(b, d, bundles[1], o, nil)
				n, fsyncs := 0, 0
				d.disk.before = func(op, _ string) error {
					if op == "fsync" {
						fsyncs++
					}
					return nil
				}
				for b.Loop() {
					bundle := bundles[n%2]
					if what == "fresh" {
						bundle.Name = strconv.Itoa(n)
					}
					apply(b, d, bundle, o, nil)
					n++
				}
				b.ReportMetric(float64(fsyncs)/float64(n), "fsyncs/cert")
			})
		}
	}
}
