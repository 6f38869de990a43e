package scheduler

import (
	"strings"
	"testing"
	"time"

	"autocertd/internal/cure"
)

func TestParseScheduleTicks(t *testing.T) {
	tests := []struct {
		name, text, after, want string
	}{
		{"every five minutes", "*/5 * * * *", "2026-05-01T10:02:03Z", "2026-05-01T10:05:00Z"},
		{"a tick is later than now", "*/5 * * * *", "2026-05-01T10:05:00Z", "2026-05-01T10:10:00Z"},
		{"UTC without a zone, wherever now is written", "0 3 * * *", "2026-05-01T02:00:00+02:00", "2026-05-01T03:00:00Z"},
		{"space around doesn't matter", "  0  3 * * *\t", "2026-05-01T02:00:00Z", "2026-05-01T03:00:00Z"},
		{"a zone", "CRON_TZ=Europe/Berlin 0 3 * * *", "2026-05-01T00:00:00Z", "2026-05-01T01:00:00Z"},
		{"a zone, the short way", "TZ=Europe/Berlin\t0 3 * * *", "2026-05-01T00:00:00Z", "2026-05-01T01:00:00Z"},
		{"a shorthand", "@hourly", "2026-05-01T00:00:01Z", "2026-05-01T01:00:00Z"},
		{"a shorthand in a zone", "TZ=Asia/Kolkata @daily", "2026-05-01T00:00:00Z", "2026-05-01T18:30:00Z"},
		{"the shortest distance", "@every 1s", "2026-05-01T00:00:00Z", "2026-05-01T00:00:01Z"},
		{"a distance", "@every 90s", "2026-05-01T00:00:00Z", "2026-05-01T00:01:30Z"},
		{"spring leaves the hour out", "TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"},
		{"autumn has the hour once", "TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"autumn has the hour again", "TZ=Europe/Berlin 30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		{"a rare day", "0 0 29 2 *", "2026-05-01T00:00:00Z", "2028-02-29T00:00:00Z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParseSchedule(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := s.Next(date(t, tt.after)), date(t, tt.want); !got.Equal(want) {
				t.Errorf("Next(%s) = %s, want %s", tt.after, got.UTC(), want)
			}
		})
	}
}

func TestParseScheduleRefuses(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"nothing", "", "there is nothing in it"},
		{"blanks", " \t", "there is nothing in it"},
		{"a zone alone", "TZ=Europe/Berlin", "a time zone and no schedule"},
		{"a zone alone, the long way", "CRON_TZ=UTC ", "a time zone and no schedule"},
		{"an empty zone", "TZ= 0 3 * * *", "the time zone has no name"},
		{"an unknown zone", "TZ=Mars/Olympus 0 3 * * *", "unknown time zone Mars/Olympus"},
		{"a zone that is a path", "TZ=../../etc/passwd 0 3 * * *", "invalid location name"},
		{"seconds", "0 0 3 * * *", "6 fields, want five"},
		{"four fields", "0 3 * *", "4 fields, want five"},
		{"a day that no month has", "0 0 30 2 *", "it never fires"},
		{"an empty list", "0 0 , * *", "it never fires"},
		{"Sunday as seven", "0 0 * * 7", "Sunday is 0"},
		{"words", "now and then, or so", "failed to parse int"},
		{"an unknown shorthand", "@reboot", "unrecognized descriptor"},
		{"a distance of nothing", "@every 0s", "whole seconds, at least one"},
		{"a distance below a second", "@every 100ms", "whole seconds, at least one"},
		{"a distance that cron would round", "@every 1500ms", "whole seconds, at least one"},
		{"a distance backwards", "@every -5m", "whole seconds, at least one"},
		{"a distance without one", "@every", "@every takes one duration"},
		{"a distance without a unit", "@every 5", "missing unit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseSchedule(tt.text)
			if err == nil || !strings.Contains(err.Error()+"; "+cure.Of(err), tt.want) {
				t.Errorf("ParseSchedule(%q) = %v, want an error with %q", tt.text, err, tt.want)
			}
		})
	}
}

// FuzzParseSchedule looks for text that panics, and for schedules that stand still.
func FuzzParseSchedule(f *testing.F) {
	for _, text := range []string{"*/5 * * * *", "TZ=Europe/Berlin", "TZ=America/Sao_Paulo 0 0 * * 0", "@every 1s", "0 0 30 2 *", ", , , , ,", "1-5/2,7 * ? jan mon"} {
		f.Add(text, int64(1_800_000_000))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64) {
		s, err := ParseSchedule(text)
		if err != nil {
			return
		}
		from := time.Unix(unix%4_000_000_000, 0)
		for range 3 {
			next := s.Next(from)
			if next.IsZero() {
				return
			}
			if !next.After(from) {
				t.Fatalf("%q: Next(%s) = %s", text, from, next)
			}
			from = next
		}
	})
}

func date(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
