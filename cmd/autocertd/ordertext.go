package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"autocertd/internal/dns01"
	"autocertd/issuer"
)

// said tells a person, on standard error, what isn't a result.
func said(what, format string, args ...any) {
	out := newScreen(os.Stderr)
	fmt.Fprintf(out.out, "%s %s\n", out.paint(dim, what+":"), fmt.Sprintf(format, args...))
}

// sayNext names the next step: the one given, or what follows a validation.
func (s *orderStep) sayNext(view *issuer.OrderView, step string) {
	if view.Validated() {
		step = s.next("finish")
	}
	said("next", "%s", step)
}

// show prints an order.
func (s *orderStep) show(view *issuer.OrderView) error {
	now := time.Now()
	rows := [][]cell{{{"certificate", dim}, {s.cert.Name, plain}}, {{"account", dim}, {view.Account, plain}},
		{{"order", dim}, {view.URL, plain}}, {{"status", dim}, {view.Status, plain}}}
	if !view.Expires.IsZero() {
		rows = append(rows, []cell{{"expires", dim}, {moment(view.Expires, now), plain}})
	}
	for _, a := range view.Authorizations {
		text := fmt.Sprintf("%s: %s", a.Hostname, a.Status)
		if !a.Expires.IsZero() {
			text += " until " + moment(a.Expires, now)
		}
		text += "; challenges: " + a.Offered
		rows = append(rows, []cell{{"identifier", dim}, {text, plain}})
	}
	return newScreen(os.Stdout).table(os.Stdout, rows)
}

// showSights prints a row for each server and record.
func showSights(out *os.File, sights []dns01.Sight) error {
	var rows [][]cell
	for _, sight := range sights {
		if sight.Err != nil {
			rows = append(rows, []cell{{sight.Record.Name, plain}, {"not found", red}, {errorText(sight.Err), plain}})
		}
		for _, at := range sight.Servers {
			found, answer := cell{"found", green}, ""
			if at.Answer != "" {
				found, answer = cell{"not found", red}, at.Answer
			}
			rows = append(rows, []cell{{sight.Trace.Name(), plain}, found, {at.Server, plain}, {answer, plain}})
		}
	}
	return newScreen(out).table(io.Writer(out), rows)
}

// tallySights says in one line how far the servers are.
func tallySights(sights []dns01.Sight) string {
	have, servers, unknown := 0, 0, ""
	for _, sight := range sights {
		if sight.Err != nil {
			unknown = "; " + errorText(sight.Err)
		}
		servers += len(sight.Servers)
		for _, at := range sight.Servers {
			if at.Answer == "" {
				have++
			}
		}
	}
	return fmt.Sprintf("%d of %d answers have the record%s", have, servers, unknown)
}
