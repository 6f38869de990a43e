package preflight

import (
	"fmt"
	"time"
)

// How far this machine's clock may be off. Servers refuse TSIG signatures that are older than 300 seconds (RFC 8945,
// section 10), and by then the clock has been going wrong for a while.
const (
	clockDoubtful = time.Minute
	clockWrong    = 5 * time.Minute
)

const clockCure = "timedatectl set-ntp true && timedatectl status"

// judgeClock compares this machine's clock with that of a CA.
func judgeClock(ca string, ahead time.Duration) Finding {
	f := Finding{Subject: ca, Check: "clock", Status: OK, Text: "this machine's clock agrees with the CA's"}
	off, direction := ahead, "ahead of"
	if ahead < 0 {
		off, direction = -ahead, "behind"
	}
	if off < clockDoubtful {
		return f
	}
	f.Status, f.Text = Warning, fmt.Sprintf("this machine's clock is %s %s the CA's", off, direction)
	f.Why = "DNS servers refuse signed updates when clocks differ by 300 seconds, and renewals come at the wrong time"
	f.Cure = clockCure
	if off >= clockWrong {
		f.Status = Failure
	}
	return f
}
