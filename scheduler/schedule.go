package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"autocertd/internal/cure"
)

// A Schedule says when to look for due work.
type Schedule interface {
	// Next returns the first tick after t; the zero time means that there is none.
	Next(t time.Time) time.Time
}

// ParseSchedule reads a cron schedule: five fields (minute, hour, day of month, month, day of week), a
// shorthand such as @hourly, or "@every 5m" in whole seconds.
//
// Times are UTC unless the schedule begins with CRON_TZ=ZONE or TZ=ZONE. In a zone with daylight saving time a
// tick inside the hour that spring leaves out doesn't happen, and one inside the hour that autumn repeats
// happens twice.
func ParseSchedule(text string) (Schedule, error) {
	s, err := parseSchedule(text)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", text, err)
	}
	return s, nil
}

func parseSchedule(text string) (Schedule, error) {
	fields, zone, err := cutZone(strings.Fields(text))
	switch {
	case err != nil:
		return nil, err
	case len(fields) == 0:
		return nil, cure.New("there is nothing in it", `write five fields, as in "*/5 * * * *", or "@every 5m"`)
	case fields[0] == "@every":
		if err := checkEvery(fields[1:]); err != nil {
			return nil, err
		}
	case !strings.HasPrefix(fields[0], "@") && len(fields) != 5:
		return nil, fmt.Errorf("%d fields, want five: minute, hour, day of month, month, day of week; there are no seconds", len(fields))
	}
	// The zone stays with us: cron panics on a zone that stands alone, and without one it takes the location
	// of the time that it's asked about.
	inner, err := cron.ParseStandard(strings.Join(fields, " "))
	if err != nil {
		return nil, cure.With(err, `want minute (0-59), hour (0-23), day of month (1-31), month (1-12), day of week (0-6, Sunday is 0), or "@every 5m"`)
	}
	s := zoned{inner, zone}
	if s.Next(time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, cure.New("it never fires", "check that the day exists in the month")
	}
	return s, nil
}

// cutZone takes a leading TZ=ZONE or CRON_TZ=ZONE off the fields of a schedule.
func cutZone(fields []string) (rest []string, zone *time.Location, err error) {
	if len(fields) == 0 {
		return nil, time.UTC, nil
	}
	key, name, found := strings.Cut(fields[0], "=")
	if !found || key != "TZ" && key != "CRON_TZ" {
		return fields, time.UTC, nil
	}
	zone, err = loadZone(name)
	if err == nil && len(fields) == 1 {
		err = cure.New("a time zone and no schedule", fmt.Sprintf(`write both, as in "%s */5 * * * *"`, fields[0]))
	}
	return fields[1:], zone, err
}

func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return nil, cure.New("the time zone has no name", "write one such as Europe/Berlin or UTC")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, cure.With(err, "names look like Europe/Berlin or UTC")
	}
	return zone, nil
}

// checkEvery refuses durations that cron would round in silence.
func checkEvery(fields []string) error {
	if len(fields) != 1 {
		return errors.New(`@every takes one duration, as in "@every 5m"`)
	}
	every, err := time.ParseDuration(fields[0])
	if err != nil {
		return cure.With(err, `write a duration as in "@every 5m"`)
	}
	if every < time.Second || every%time.Second != 0 {
		return errors.New("@every takes whole seconds, at least one")
	}
	return nil
}

// zoned is a schedule that counts in a zone of its own.
type zoned struct {
	inner cron.Schedule
	zone  *time.Location
}

func (s zoned) Next(t time.Time) time.Time {
	next := s.inner.Next(t.In(s.zone))
	if next.IsZero() {
		return time.Time{}
	}
	return next.In(t.Location())
}
