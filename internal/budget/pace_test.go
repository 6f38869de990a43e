package budget

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"autocertd/scheduler"
)

func TestPace(t *testing.T) {
	tests := []struct {
		schedule, window string
		lifetime         time.Duration
		emergency        time.Duration
		want             string // parts of the error, "" for none
	}{
		{"* * * * *", "", 90 * day, 0, ""},
		{"* * * * *", "", 90 * time.Second, 0, "up to 1m pass between two looks, and a certificate that lives 1m30s is renewed 45s before its end, into which 3 looks must fit: at most 15s apart"},
		{"@every 1s", "", 90 * time.Second, 0, ""},
		{"30 3 * * *", "", 160 * time.Hour, 0, ""},
		{"0 3 * * 1-5", "", 160 * time.Hour, 0, "up to 3d pass between two looks, and a certificate that lives 160h is renewed 80h before its end, into which 3 looks must fit: at most 26h40m apart"},
		{"0 3 * * 0", "", 45 * day, 0, "up to 7d pass"},
		{"0 3 * * 0", "", 90 * day, 0, ""},
		{"0 3 1 * *", "", 90 * day, 0, "up to 31d pass"},
		{"0 3 1 1 *", "", 90 * day, 0, "pass between two looks"},
		{"* 2 * * 0", "", 45 * day, 0, "up to 167h1m pass"},
		{"* * * * *", "02:00-04:00", 160 * time.Hour, 0, ""},
		{"* * * * *", "Sun 02:00-04:00", 90 * day, 0, ""},
		{"* * * * *", "Sun 02:00-04:00", 160 * time.Hour, 0, "closed for up to 166h and looks are up to 1m apart, and a certificate that lives 160h is due after 80h and doesn't wait for it any more with 26h40m left: 53h20m later"},
		{"* * * * *", "Sun 02:00-04:00", 160 * time.Hour, 100 * time.Hour, ""}, // switched off
		{"0 3 * * *", "Sun 02:00-04:00", 45 * day, 0, "looks are up to 24h apart"},
		{"* * * * *", "Sun 02:00-04:00", 45 * day, 0, ""},
		{"@monthly", "", 160 * time.Hour, 0, "it looks too seldom"},
		{"* * * * *", "02:00-04:00", 10 * time.Minute, 0, "it is closed for up to 22h"},
		{"@yearly", "00:00-24:00", 90 * day, 0, "it looks too seldom"},
		{"@yearly", "Mon-Sun 00:00-12:00; 12:00-24:00 UTC", 90 * day, 0, "it looks too seldom"},
	}
	for _, tt := range tests {
		schedule, err := scheduler.ParseSchedule(tt.schedule)
		if err != nil {
			t.Fatal(err)
		}
		window, err := scheduler.ParseWindow(tt.window)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckWindow(window, schedule, tt.emergency, tt.lifetime, noon()); err != nil && (tt.window == "" || tt.schedule == "@yearly") {
			t.Errorf("%s: %v, of a window that nobody wrote, or that is always open", tt.schedule, err)
		}
		var got string
		if err := CheckSchedule(schedule, tt.lifetime, noon()); err != nil {
			got = err.Error()
		}
		if err := CheckWindow(window, schedule, tt.emergency, tt.lifetime, noon()); err != nil && (got == "" || strings.Contains(tt.want, "closed")) {
			got = err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", fmt.Sprint(tt.schedule, " ", tt.window, " ", tt.lifetime), got, tt.want)
		}
	}
}

func TestMeeting(t *testing.T) {
	tests := []struct {
		schedule, window string
		want             string // part of the error, "" for none
	}{
		{"* * * * *", "", ""},
		{"0 3 * * *", "", ""},
		{"* * * * *", "20:15-20:16", ""},
		{"0 3 * * *", "22:00-23:00", "is open at 2026-06-01 22:00 UTC, and the next look is at 2026-06-02 03:00 UTC"},
		{"0 3 * * *", "03:00-03:01", ""},
		{"0 3 * * *", "02:00-03:00", "no look of the schedule"}, // its end isn't in it
		{"0 3 * * *", "Sun 02:00-04:00", ""},
		{"0 3 * * 1-5", "Sat,Sun 00:00-24:00", "no look of the schedule"},
		{"0 3 1 * *", "Sat 02:00-04:00", ""}, // some months begin on a Saturday
		{"*/2 * * * *", "20:15-20:16", "no look of the schedule"},
		{"*/2 * * * *", "20:15-20:17", ""},
		{"0 3 * * *", "22:00-23:00; 02:00-04:00", ""},
		{"TZ=Europe/Berlin 0 3 * * *", "00:00-02:30", ""},               // one or two in UTC
		{"@every 1h", "02:00-02:30", "no look of the schedule is sure"}, // when it looks depends on when it was started
		{"@every 30m", "02:00-02:31", ""},
		{"@every 1s", "02:00-02:01", ""},
		{"@monthly", "02:00-04:00", "no look of the schedule"},
	}
	for _, tt := range tests {
		schedule, err := scheduler.ParseSchedule(tt.schedule)
		if err != nil {
			t.Fatal(err)
		}
		window, err := scheduler.ParseWindow(tt.window)
		if err != nil {
			t.Fatal(err)
		}
		err = CheckMeeting(window, schedule, noon())
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, window %q: %v, want %q", tt.schedule, tt.window, err, tt.want)
		}
	}
}
