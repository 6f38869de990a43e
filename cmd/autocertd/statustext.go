package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"autocertd/internal/lifecycle"
)

// Widths of columns.
const (
	leastHostnames = 9 // as wide as the heading
	mostHostnames  = 40
	leastErrors    = 30 // with less room, errors get lines of their own
	unlimited      = 1 << 10
)

// printTable writes one row for each certificate. On a narrow terminal the errors follow below their rows; elsewhere
// every certificate is one line, for grep and friends.
func printTable(list []lifecycle.Status, now time.Time) error {
	out := newScreen(os.Stdout)
	width := unlimited
	if out.terminal {
		width, _ = out.size()
	}
	rows := [][]cell{{{"NAME", dim}, {"", dim}, {"EXPIRES IN", dim}, {"RENEWS IN", dim}, {"STATE", dim}}}
	for _, c := range list {
		rows = append(rows, []cell{{c.Name, plain}, {"", plain}, {until(c.NotAfter, now), plain},
			{next(renewal(c), now), plain}, {string(c.Condition), stateColour(c.Condition)}})
	}
	forHostnames := min(max(left(rows, width), leastHostnames), mostHostnames)
	rows[0][1].text = "HOSTNAMES"
	for i, c := range list {
		rows[i+1][1].text = hostnames(c, forHostnames)
	}
	room := left(rows, width) - columnGap
	if room < leastErrors {
		return out.table(os.Stdout, withErrorsBelow(rows, list, width))
	}
	rows[0] = append(rows[0], cell{"LAST ERROR", dim})
	for i, c := range list {
		rows[i+1] = append(rows[i+1], cell{short(c.LastError(), room), plain})
	}
	return out.table(os.Stdout, rows)
}

// left is how much of the width a table leaves.
func left(rows [][]cell, width int) int {
	for i, w := range columns(rows) {
		width -= w
		if i > 0 {
			width -= columnGap
		}
	}
	return width
}

func withErrorsBelow(rows [][]cell, list []lifecycle.Status, width int) [][]cell {
	result := rows[:1:1]
	for i, c := range list {
		result = append(result, rows[i+1])
		if text := c.LastError(); text != "" {
			result = append(result, []cell{{"  " + short(text, width-2), plain}})
		}
	}
	return result
}

// printDetails writes all that a person may want to know about each certificate.
func printDetails(list []lifecycle.Status, now time.Time) error {
	out := newScreen(os.Stdout)
	for i, c := range list {
		if i > 0 {
			fmt.Println()
		}
		rows := [][]cell{{{"name", dim}, {c.Name, plain}}, {{"hostnames", dim}, {strings.Join(c.Hostnames, ", "), plain}},
			{{"state", dim}, {string(c.Condition), stateColour(c.Condition)}}}
		add := func(key, text string) { rows = append(rows, []cell{{key, dim}, {text, plain}}) }
		if !c.NotAfter.IsZero() {
			add("issued by", fmt.Sprintf("%s (%s), serial %s", c.Leaf.CA, c.Leaf.Issuer, c.Leaf.Serial))
			add("expires", moment(c.NotAfter, now))
		}
		if !c.RenewAt.IsZero() {
			add("renews", moment(c.RenewAt, now)+": "+c.RenewWhy)
		}
		for _, line := range c.ByHand {
			add("add to zone", line)
		}
		if !c.Held.Until.IsZero() {
			add("held until", moment(c.Held.Until, now)+": "+c.Held.Reason)
		}
		addTrouble(add, "not issued", c.Issue, now)
		addTrouble(add, "not deployed", c.Deploy, now)
		for _, p := range c.Pending {
			add("still to do", p)
		}
		if err := out.table(os.Stdout, rows); err != nil {
			return err
		}
	}
	return nil
}

// addTrouble says in full what the table cuts short.
func addTrouble(add func(key, text string), what string, t lifecycle.Trouble, now time.Time) {
	if t.Failures == 0 {
		return
	}
	add(what, fmt.Sprintf("tried %s, last %s", times(t.Failures), moment(t.At, now)))
	add("next try", moment(t.RetryAt, now))
	for i, line := range strings.Split(t.Error, "\n") {
		key := "last error"
		if i > 0 {
			key = ""
		}
		add(key, line)
	}
}

// printDaemon says whether anybody looks after all this, and with which configuration.
func printDaemon(out screen, r *statusReport) {
	if r.Daemon == nil {
		fmt.Fprintf(out.out, "%s on %s; to start it: systemctl start autocertd\n", out.paint(yellow, "no daemon runs"), r.stateDir)
	}
	switch {
	case len(r.Mistakes) > 0:
		printProblems(out, r.Mistakes, nil)
		fmt.Fprintln(out.out, "the configuration has mistakes; the certificates are those that the daemon last took over")
	case r.Daemon != nil && r.Daemon.ConfigError != "":
		fmt.Fprintf(out.out, "%s; since %s it refuses the files:\n%s\n", out.paint(red, "the daemon runs with an earlier configuration"),
			r.Daemon.ConfigErrorAt.Local().Format(time.DateTime), r.Daemon.ConfigError)
	case len(r.Certificates) == 0:
		fmt.Fprintln(out.out, `no certificate is configured; to get one: hostnames = ["host.corp.example.com"]`)
	}
}

// hostnames are those of a certificate as far as there is room, = when they say no more than its name.
func hostnames(c lifecycle.Status, room int) string {
	if len(c.Hostnames) == 1 && c.Hostnames[0] == c.Name {
		return "="
	}
	text := strings.Join(c.Hostnames, ",")
	for n := len(c.Hostnames) - 1; n > 0 && len(text) > room; n-- {
		text = fmt.Sprintf("%s +%d", strings.Join(c.Hostnames[:n], ","), len(c.Hostnames)-n)
	}
	return cut(text, room)
}

// until says how long it is to a moment, or that it has passed.
func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return span(now.Sub(t)) + " ago"
	}
	return span(t.Sub(now))
}

// next is until for what happens at the next occasion once its moment has passed.
func next(t, now time.Time) string {
	if !t.IsZero() && !t.After(now) {
		return "now"
	}
	return until(t, now)
}

// moment names a moment by the clock, and how far away it is.
func moment(t, now time.Time) string {
	distance := until(t, now)
	if t.After(now) {
		distance = "in " + distance
	}
	return fmt.Sprintf("%s (%s)", t.Local().Format("2006-01-02 15:04:05 MST"), distance)
}

func stateColour(c lifecycle.Condition) colour {
	switch {
	case c == lifecycle.Valid:
		return green
	case slices.Contains([]lifecycle.Condition{lifecycle.Expired, lifecycle.Failing, lifecycle.NotDeployed}, c):
		return red
	}
	return yellow
}
