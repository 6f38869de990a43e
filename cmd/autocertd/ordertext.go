package main

import (
	"fmt"
	"os"
	"time"

	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// said tells a person, on standard error, what isn't a result.
func said(what, format string, args ...any) {
	term.On(os.Stderr).Say(term.Dim, what+":", fmt.Sprintf(format, args...))
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
	var rows [][2]term.Cell
	add := func(key, text string) {
		rows = append(rows, [2]term.Cell{{Text: key, Colour: term.Dim}, {Text: text}})
	}
	add("certificate", s.cert.Name)
	add("account", view.Account)
	add("order", view.URL)
	add("status", view.Status)
	if !view.Expires.IsZero() {
		add("expires", term.Moment(view.Expires, now))
	}
	for _, a := range view.Authorizations {
		text := fmt.Sprintf("%s: %s", a.Hostname, a.Status)
		if !a.Expires.IsZero() {
			text += " until " + term.Moment(a.Expires, now)
		}
		add("identifier", text+"; challenges: "+a.Offered)
	}
	_, err := term.Pairs(rows).Print(term.On(os.Stdout))
	return err
}

// showSights prints a row for each server and record.
func showSights(out *os.File, sights []zones.Lookup) error {
	t := term.Table{Columns: make([]term.Column, 4)}
	add := func(name string, found bool, server, answer string) {
		cell := term.Cell{Text: "not found", Colour: term.Red}
		if found {
			cell = term.Cell{Text: "found", Colour: term.Green}
		}
		t.Rows = append(t.Rows, term.Row{Cells: []term.Cell{{Text: name}, cell, {Text: server}, {Text: answer}}})
	}
	for _, sight := range sights {
		if sight.Err != nil {
			add(sight.Name, false, term.Text(sight.Err), "")
		}
		for _, at := range sight.Servers {
			add(sight.Target.Name(), at.Answer == "", at.Server, at.Answer)
		}
	}
	_, err := t.Print(term.On(out))
	return err
}

// tallySights says in one line how far the servers are.
func tallySights(sights []zones.Lookup) string {
	have, servers, unknown := 0, 0, ""
	for _, sight := range sights {
		if sight.Err != nil {
			unknown = "; " + term.Text(sight.Err)
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
