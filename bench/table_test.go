//go:build linux

package bench_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// sample is what the rounds of a benchmark gave.
type sample[T cmp.Ordered] []T

func (s sample[T]) best() T { return slices.Min(s) }

func (s sample[T]) median() T { return slices.Sorted(slices.Values(s))[len(s)/2] }

// table is what a person reads at the end of a benchmark.
type table struct {
	title  string
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// log prints the table after the benchmark's own line.
func (t *table) log(b *testing.B) {
	b.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{t.header}, t.rows...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	check(b, w.Flush())
	b.Logf("%s\n%s", t.title, text.String())
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1e3) }

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

func mebi(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func ratio(x, y time.Duration) string { return fmt.Sprintf("%.2f", float64(x)/float64(y)) }
