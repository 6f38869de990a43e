package scheduler

import (
	"strings"
	"testing"
	"time"

	"autocertd/internal/cure"
)

func TestWindowNext(t *testing.T) {
	const inside = "inside"
	// 2026-05-01 is a Friday.
	tests := []struct {
		name, window, at, want string
	}{
		{"no window is always open", "", "2026-05-01T12:00:00Z", inside},
		{"before the hours, wait for them", "10:00-12:00", "2026-05-01T09:59:59Z", "2026-05-01T10:00:00Z"},
		{"the beginning is inside", "10:00-12:00", "2026-05-01T10:00:00Z", inside},
		{"the last second is inside", "10:00-12:00", "2026-05-01T11:59:59Z", inside},
		{"the end is outside", "10:00-12:00", "2026-05-01T12:00:00Z", "2026-05-02T10:00:00Z"},
		{"a night begins in the evening", "22:00-04:00", "2026-05-01T12:00:00Z", "2026-05-01T22:00:00Z"},
		{"a night is inside before midnight", "22:00-04:00", "2026-05-01T23:00:00Z", inside},
		{"a night is inside after midnight", "22:00-04:00", "2026-05-02T03:59:00Z", inside},
		{"a night ends", "22:00-04:00", "2026-05-02T04:00:00Z", "2026-05-02T22:00:00Z"},
		{"a weekend begins on Saturday", "Sat,Sun 00:00-24:00", "2026-05-01T12:00:00Z", "2026-05-02T00:00:00Z"},
		{"a weekend has two days", "Sat,Sun 00:00-24:00", "2026-05-03T23:59:59Z", inside},
		{"a weekend ends", "Sat,Sun 00:00-24:00", "2026-05-04T00:00:00Z", "2026-05-09T00:00:00Z"},
		{"a Friday's night reaches into Saturday", "mon-fri 20:00-06:00", "2026-05-02T05:00:00Z", inside},
		{"a Saturday has no night of its own", "Mon-Fri 20:00-06:00", "2026-05-02T20:00:00Z", "2026-05-04T20:00:00Z"},
		{"a Sunday's night isn't Monday's", "Mon-Fri 20:00-06:00", "2026-05-04T05:00:00Z", "2026-05-04T20:00:00Z"},
		{"days may go round the week", "Sat-Mon 01:00-02:00", "2026-05-04T01:30:00Z", inside},
		{"one day a week", "Thu 10:00-11:00", "2026-05-01T00:00:00Z", "2026-05-07T10:00:00Z"},
		{"of several windows the next", "Sun 03:00-05:00; Wed 03:00-05:00", "2026-05-04T00:00:00Z", "2026-05-06T03:00:00Z"},
		{"of several windows any", "Sun 03:00-05:00; Fri 03:00-05:00", "2026-05-01T04:00:00Z", inside},
		{"a zone has its own hours", "20:00-06:00 Europe/Berlin", "2026-05-01T12:00:00Z", "2026-05-01T18:00:00Z"},
		{"a zone has its own days", "Sat 00:00-24:00 Pacific/Auckland", "2026-05-01T11:00:00Z", "2026-05-01T12:00:00Z"},
		{"in winter the zone is another hour off", "20:00-06:00 Europe/Berlin", "2026-12-01T12:00:00Z", "2026-12-01T19:00:00Z"},
		{"hours that spring leaves out don't come", "02:00-03:00 Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z"},
		{"west of Greenwich neither", "02:00-03:00 America/New_York", "2026-03-07T12:00:00Z", "2026-03-09T06:00:00Z"},
		{"nor on the one day of the week", "Sun 02:00-03:00 Europe/Berlin", "2026-03-23T12:00:00Z", "2026-04-05T00:00:00Z"},
		{"hours that spring shortens open with the change", "02:30-05:00 Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"also west of Greenwich", "02:30-05:00 America/New_York", "2026-03-07T12:00:00Z", "2026-03-08T07:00:00Z"},
		{"a day without a midnight begins at one", "Sun 00:00-24:00 America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"},
		{"hours that autumn repeats open the first time", "02:30-03:00 Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"and close between", "02:30-03:00 Europe/Berlin", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"},
		{"a night in autumn is an hour longer", "22:00-04:00 Europe/Berlin", "2026-10-25T02:59:00Z", inside},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, err := ParseWindow(tt.window)
			if err != nil {
				t.Fatal(err)
			}
			if w.String() != tt.window {
				t.Errorf("String() = %q, want %q", w, tt.window)
			}
			at := date(t, tt.at)
			want := at
			if tt.want != inside {
				want = date(t, tt.want)
			}
			if got := w.Next(at); !got.Equal(want) {
				t.Errorf("Next(%s) = %s, want %s", at, got, want)
			}
		})
	}
}

func TestParseWindowRefuses(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"words", "at night", `"at" is no day`},
		{"days without hours", "Sat", "write it as"},
		{"an end without a beginning", "-04:00", "no time of day"},
		{"a beginning without an end", "22:00", "has no end"},
		{"an hour that no day has", "22:00-25:00", "no time of day"},
		{"a beginning at the end of the day", "24:00-04:00", "no time of day"},
		{"a day without hours", "Sat", `"Sat" has no end`},
		{"hours of no length", "22:00-22:00", "the whole day is 00:00-24:00"},
		{"a day that no week has", "Sat,Holiday 00:00-24:00", `"Holiday" is no day`},
		{"a comma too many", "Sat, 00:00-24:00", `"" is no day`},
		{"a zone that isn't", "22:00-04:00 Mars/Olympus", "unknown time zone"},
		{"too much", "Sat 22:00-04:00 Europe/Berlin please", "write it as"},
		{"a second window that is empty", "22:00-04:00;", `window ""`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseWindow(tt.text)
			if err == nil || !strings.Contains(err.Error()+"; "+cure.Of(err), tt.want) {
				t.Errorf("ParseWindow(%q) = %v, want an error with %q", tt.text, err, tt.want)
			}
		})
	}
}

// FuzzWindow holds Next to its promise: the moment is inside, and the second before it isn't, unless it's t.
func FuzzWindow(f *testing.F) {
	for _, text := range []string{"22:00-04:00", "Sat,Sun 00:00-24:00", "Mon-Fri 20:00-06:00 Europe/Berlin", "Sun 02:30-02:45 America/New_York; 00:00-00:01 Australia/Lord_Howe"} {
		f.Add(text, int64(1_774_700_000))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		w, err := ParseWindow(text)
		if err != nil {
			return
		}
		at := time.Unix(unix%4_000_000_000, 0).UTC()
		next := w.Next(at)
		if next.Before(at) || !w.Next(next).Equal(next) {
			t.Fatalf("%q: Next(%s) = %s, and from there %s", text, at, next, w.Next(next))
		}
		if second := next.Add(-time.Second); next.After(at) && !w.Next(second).Equal(next) {
			t.Fatalf("%q: Next(%s) = %s, but it opened earlier", text, at, next)
		}
	})
}
