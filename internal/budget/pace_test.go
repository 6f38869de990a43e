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
		{"* * * * *", "02:00-04:00", 10 * time.Minute, 0, "it is closed for up to 22h"},
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
