package term

import (
	"slices"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for _, row := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"},
		{999 * time.Millisecond, "0s"},
		{59 * time.Second, "59s"},
		{61 * time.Second, "1m 1s"},
		{5 * time.Hour, "5h"},
		{10*time.Hour + 30*time.Minute, "10h"},
		{2*day + 3*time.Hour + 59*time.Minute, "2d 3h"},
		{89*day + 23*time.Hour, "89d"},
		{-90 * time.Second, "-1m 30s"},
	} {
		if got := Span(row.d); got != row.want {
			t.Errorf("Span(%s) = %q, want %q", row.d, got, row.want)
		}
	}
}

func TestShort(t *testing.T) {
	for _, row := range []struct {
		text  string
		width int
		want  string
	}{
		{"as it is", 8, "as it is"},
		{"too long by far", 8, "too lon…"},
		{"several\nlines\n  are one", 80, "several lines are one"},
		{"größer als Bytes", 6, "größe…"},
		{"no room", 0, "…"},
	} {
		if got := Cut(OneLine(row.text), row.width); got != row.want {
			t.Errorf("Cut(OneLine(%q), %d) = %q, want %q", row.text, row.width, got, row.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, row := range []struct {
		text  string
		width int
		want  []string
	}{
		{"it fits", 10, []string{"it fits"}},
		{"one line is too short", 10, []string{"one line", "is too", "short"}},
		{"an-unbreakable-word stays", 8, []string{"an-unbreakable-word", "stays"}},
		{"lines\nstay", 80, []string{"lines", "stay"}},
		{"größe zählt", 6, []string{"größe", "zählt"}},
		{"", 10, []string{""}},
	} {
		if got := Wrap(row.text, row.width); !slices.Equal(got, row.want) {
			t.Errorf("Wrap(%q, %d) = %q, want %q", row.text, row.width, got, row.want)
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		what         string
		at           time.Time
		until, nextT string
	}{
		{"unknown", time.Time{}, "-", "-"},
		{"ahead", now.Add(90 * time.Minute), "1h 30m", "1h 30m"},
		{"now", now, "0s", "now"},
		{"passed", now.Add(-3 * time.Hour), "3h ago", "now"},
	} {
		if got := Until(row.at, now); got != row.until {
			t.Errorf("%s: until = %q, want %q", row.what, got, row.until)
		}
		if got := Next(row.at, now); got != row.nextT {
			t.Errorf("%s: next = %q, want %q", row.what, got, row.nextT)
		}
	}
}

// TestNarrow lays a table out whose elastic column gives way, and then the whole table.
func TestNarrow(t *testing.T) {
	wide := Table{
		Columns: []Column{{Head: "NAME"}, {Head: "VALUE", Least: 8, Most: 12}, {Head: "HIDDEN", Hidden: true}, {Head: "STATE", Least: 5}},
		Rows:    []Row{{Cells: []Cell{{Text: "name.example.test"}, {Text: "0123456789abcdef"}, {Text: "secret"}, {Text: "in the zone"}}}},
		Narrow: &Table{Columns: []Column{{Head: "NAME"}}, Indent: 2, Rows: []Row{{Cells: []Cell{{Text: "name.example.test"}},
			Below: []Note{{Label: "is ", Fit: func(room int) string { return Cut("0123456789abcdef", room) }}}}}},
	}
	for _, row := range []struct {
		width int
		want  string
	}{
		{80, "NAME               VALUE         STATE\nname.example.test  0123456789a…  in the zone\n"},
		{36, "NAME               VALUE       STATE\nname.example.test  012345678…  in t…\n"},
		{20, "NAME\nname.example.test\n  is 0123456789abcd…\n"},
	} {
		if got, cut := wide.Format(row.width); got != row.want || cut {
			t.Errorf("%d columns, cut %t:\n%s", row.width, cut, got)
		}
	}
}
