package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"autocertd/internal/cure"
)

// Window is the administrator's maintenance window: the hours in which certificates may be renewed. The zero
// Window is always open.
type Window struct {
	text  string
	spans []span
}

// span is the same hours on some days of the week. Hours that end at or before their beginning end on the
// following day; the days are those of the beginning.
type span struct {
	days     [7]bool // by time.Weekday
	from, to int     // minutes on the clock
	zone     *time.Location
}

// ParseWindow reads windows separated by ";", each of days (every day when left out), hours, and a zone (UTC when
// left out): "22:00-04:00", "Sat,Sun 00:00-24:00", "Mon-Fri 20:00-06:00 Europe/Berlin". Empty text is the zero
// Window.
//
// The clock on the wall decides. In a zone with daylight saving time, hours that lie wholly inside the hour that
// spring leaves out don't come on that day, and hours that autumn repeats come twice.
func ParseWindow(text string) (Window, error) {
	w := Window{text: strings.TrimSpace(text)}
	if w.text == "" {
		return Window{}, nil
	}
	for part := range strings.SplitSeq(w.text, ";") {
		s, err := parseSpan(strings.Fields(part))
		if err != nil {
			return Window{}, fmt.Errorf("window %q: %w", strings.TrimSpace(part), err)
		}
		w.spans = append(w.spans, s)
	}
	return w, nil
}

// String returns the window as it was written.
func (w Window) String() string { return w.text }

// Next returns t itself when it's inside the window, else the moment when the window opens next.
func (w Window) Next(t time.Time) time.Time {
	var next time.Time
	for _, s := range w.spans {
		if n := s.next(t); next.IsZero() || n.Before(next) {
			next = n
		}
	}
	if next.IsZero() {
		return t
	}
	return next.In(t.Location())
}

// opens returns the first moment from t on at which one of the spans begins; the zero time for the zero Window.
func (w Window) opens(t time.Time) (first time.Time) {
	for _, s := range w.spans {
		if n := s.opens(t); first.IsZero() || n.Before(first) {
			first = n
		}
	}
	return first
}

// next is Window.Next for one span.
func (s span) next(t time.Time) time.Time {
	if s.contains(t) {
		return t
	}
	return s.opens(t)
}

// opens is Window.opens for one span.
func (s span) opens(t time.Time) time.Time {
	year, month, today := t.In(s.zone).Date()
	// The day of a weekly window may be the one on which spring leaves its hours out: then it's the week after.
	for day := today - 1; day <= today+15; day++ {
		var first time.Time
		for _, opening := range s.openings(time.Date(year, month, day, 0, s.from, 0, 0, time.UTC)) {
			if !opening.Before(t) && s.contains(opening) && (first.IsZero() || opening.Before(first)) {
				first = opening
			}
		}
		if !first.IsZero() {
			return first
		}
	}
	return t // a span has a day, so one of its openings was found
}

// contains compares the clock on the wall.
func (s span) contains(t time.Time) bool {
	t = t.In(s.zone)
	clock, today := t.Hour()*60+t.Minute(), t.Weekday()
	if s.from < s.to {
		return s.days[today] && s.from <= clock && clock < s.to
	}
	return s.days[today] && s.from <= clock || s.days[(today+6)%7] && clock < s.to
}

// openings returns the moments at which the span can open on a day: when the clock shows its beginning, which is
// written as if in UTC, by the offset before and the offset after a change of that day, and the change itself.
// Some may lie outside the span.
func (s span) openings(clock time.Time) [3]time.Time {
	before, after := clock.Add(-24*time.Hour).In(s.zone), clock.Add(24*time.Hour).In(s.zone)
	_, east := before.Zone()
	_, eastAfter := after.Zone()
	change, _ := after.ZoneBounds()
	return [3]time.Time{
		clock.Add(-time.Duration(east) * time.Second),
		clock.Add(-time.Duration(eastAfter) * time.Second),
		change,
	}
}

const windowHint = `write it as "22:00-04:00" or "Sat,Sun 00:00-24:00 Europe/Berlin"`

func parseSpan(fields []string) (span, error) {
	s := span{days: [7]bool{true, true, true, true, true, true, true}, zone: time.UTC}
	var err error
	if len(fields) > 1 && !strings.Contains(fields[0], ":") {
		if s.days, err = parseDays(fields[0]); err != nil {
			return span{}, err
		}
		fields = fields[1:]
	}
	if len(fields) != 1 && len(fields) != 2 {
		return span{}, errors.New(windowHint)
	}
	if s.from, s.to, err = parseHours(fields[0]); err != nil {
		return span{}, err
	}
	if len(fields) == 2 {
		if s.zone, err = loadZone(fields[1]); err != nil {
			return span{}, err
		}
	}
	return s, nil
}

// parseDays reads "Sat,Sun", "Mon-Fri" or "Fri-Mon".
func parseDays(text string) (days [7]bool, err error) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, ok := weekday(first)
		to, ok2 := weekday(last)
		if !ok || !ok2 {
			return days, cure.New(fmt.Sprintf("%q is no day", part), "days are Mon, Tue, Wed, Thu, Fri, Sat, Sun")
		}
		days[to] = true
		for day := from; day != to; day = (day + 1) % 7 {
			days[day] = true
		}
	}
	return days, nil
}

func weekday(text string) (time.Weekday, bool) {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if strings.EqualFold(text, day.String()[:3]) {
			return day, true
		}
	}
	return 0, false
}

// parseHours reads "22:00-04:00" as minutes on the clock.
func parseHours(text string) (from, to int, err error) {
	begin, end, found := strings.Cut(text, "-")
	if !found {
		return 0, 0, cure.New(fmt.Sprintf("%q has no end", text), windowHint)
	}
	if from, err = parseClock(begin); err != nil {
		return 0, 0, err
	}
	if end == "24:00" {
		return from, 24 * 60, nil
	}
	if to, err = parseClock(end); err != nil {
		return 0, 0, err
	}
	if from == to {
		return 0, 0, cure.New(fmt.Sprintf("%q begins when it ends", text), "the whole day is 00:00-24:00")
	}
	return from, to, nil
}

func parseClock(text string) (minutes int, err error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, cure.New(fmt.Sprintf("%q is no time of day", text), windowHint)
	}
	return t.Hour()*60 + t.Minute(), nil
}
