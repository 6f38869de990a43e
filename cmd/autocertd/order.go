package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"autocertd/internal/cure"
	"autocertd/internal/dnsname"
	"autocertd/internal/durable"
	"autocertd/internal/state"
	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

func orderCommand(opts *options) *cobra.Command {
	f := &orderFlags{caFlags: caFlags{options: opts}}
	command := &cobra.Command{
		Use:   "order",
		Short: "One certificate, step by step, when a person edits the zone",
		Long: "One certificate, step by step: each command is a process of its own, nothing is lost between them, and days may go by as\n" +
			"far as the CA allows it. A step that is already done says so and changes nothing. They work beside the daemon, and\n" +
			"without any configuration: name the CA by --directory, at every step.",
		Example: `  autocertd order new www.corp.example.com       make the order
  autocertd order records www.corp.example.com   the TXT record, as a line for the zone file
  autocertd order check www.corp.example.com     do all servers have it?
  autocertd order validate www.corp.example.com  let the CA look
  autocertd order finish www.corp.example.com    get the certificate`,
		Args: noArguments,
		RunE: commandMissing,
	}
	f.add(command)
	flags := command.PersistentFlags()
	flags.StringVar(&f.ca, "ca", "", "the CA, by its `NAME` in the configuration")
	flags.StringVar(&f.email, "email", "", "with --directory: the contact of a new account, an `ADDRESS`")
	flags.BoolVar(&f.acceptTerms, "accept-terms", false, "with --directory: the CA's terms of service are accepted")
	flags.StringArrayVar(&f.nameservers, "nameserver", nil, "ask this `ADDRESS` instead of the zone's own servers; may be repeated")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show each request to the CA and its reply, without secrets")
	command.AddCommand(f.newCommand(), f.recordsCommand(), f.checkCommand(), f.validateCommand(), f.finishCommand())
	for _, step := range command.Commands() {
		step.ValidArgsFunction = completeNames(opts)
	}
	return command
}

// step returns the command of a step, which takes the name of one certificate. do is its work.
func (f *orderFlags) step(use, short, long string, do func(s *orderStep, ctx context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 0 && len(f.hostnames) == 0 {
				return wrongUsage(cmd, fmt.Sprintf("order %s takes the name of one certificate", cmd.Name()))
			}
			s, err := f.begin(cmd.Context(), cmd.Name(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			defer s.end()
			return do(s, cmd.Context())
		},
	}
}

func (f *orderFlags) newCommand() *cobra.Command {
	command := f.step("new NAME", "Make the order and show what the CA offers",
		"Make the order for a certificate of the configuration, for a hostname, or for those given by -d, and show it. An account\n"+
			"is registered when there is none.", (*orderStep).new)
	command.Flags().StringArrayVarP(&f.hostnames, "domain", "d", nil, "a `HOST`name, instead of those of the configuration; may be repeated")
	command.Flags().StringVar(&f.keyType, "key-type", "", "with -d: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	command.Flags().StringVar(&f.profile, "profile", "", "with -d: the CA's profile")
	command.Flags().BoolVar(&f.force, "force", false, "start anew, whatever is open or there already")
	return command
}

// new makes the order, unless one is open or none is needed.
func (s *orderStep) new(ctx context.Context) error {
	if b, _ := s.hand.Bundle(); s.unnamed && s.open == nil && b != nil && b.CSR == nil && !dnsname.Same(b.Hostnames, s.cert.Hostnames) {
		s.cert = s.hand.LikeBefore()
		said("note", "for the hostnames of the certificate that there is: %s; for others name them: %s", strings.Join(b.Hostnames, ", "), s.next("new", "-d", s.cert.Name))
	}
	wanted := s.cert.Hostnames
	switch {
	case s.flags.force && s.open != nil:
		if err := s.issuer.GiveUpOrder(ctx, s.request()); err != nil {
			return err
		}
		s.open = nil
	case s.open != nil && !dnsname.Same(s.open.Hostnames, wanted):
		return cure.New(fmt.Sprintf("an order for %s is open already, since %s", strings.Join(s.open.Hostnames, ", "), s.open.Created.Local().Format(time.DateTime)),
			"to give it up: "+s.next("new", "--force"))
	case s.open == nil && !s.flags.force && s.hand.Fresh(wanted, time.Now()):
		_, leaf := s.hand.Bundle()
		said("already done", "a certificate for these hostnames expires %s; for another one: %s", term.Moment(leaf.NotAfter, time.Now()), s.next("new", "--force"))
		said("next", "%s", s.next("finish"))
		return nil
	}
	if err := s.mayRegister(ctx); err != nil {
		return err
	}
	view, err := s.findOrMake(ctx)
	if err != nil {
		return err
	}
	if view.Resumed {
		said("already done", "this order is open since %s", s.open.Created.Local().Format(time.DateTime))
	}
	if err := s.show(view); err != nil {
		return err
	}
	s.sayNext(view, s.next("records"))
	return nil
}

// findOrMake goes on with the open order, with the key and profile that it was made for, while the CA has it.
func (s *orderStep) findOrMake(ctx context.Context) (*issuer.OrderView, error) {
	if s.open != nil {
		view, err := s.issuer.ShowOrder(ctx, s.request())
		if !errors.Is(err, issuer.ErrNoOrder) {
			return view, err
		}
	}
	wanted, err := s.hand.Wanted(ctx, s.issuer, s.ca)
	if err != nil {
		return nil, err
	}
	return s.issuer.OpenStep(ctx, wanted)
}

// mayRegister refuses when an account is needed and the terms of service aren't accepted. A table in the configuration
// accepts them.
func (s *orderStep) mayRegister(ctx context.Context) error {
	if s.ca.AcceptTerms {
		return nil
	}
	names, err := state.AccountNames(ctx, s.store, s.ca.Directory)
	if err != nil || slices.Contains(names, s.ca.Name) {
		return err
	}
	probe, err := s.issuer.Probe(ctx)
	if err != nil {
		return err
	}
	terms := "the CA's terms of service"
	if probe.Terms != "" {
		terms += ", " + probe.Terms
	}
	return wrong(fmt.Sprintf("there is no account at %s yet", s.ca.Directory), fmt.Sprintf("read %s, and add --accept-terms", terms))
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

func (f *orderFlags) recordsCommand() *cobra.Command {
	command := f.step("records NAME", "Show the TXT records to add to the zone",
		"Show the TXT records to add to the zone: as lines of a zone file, as a script for nsupdate, or as JSON.", (*orderStep).records)
	command.Flags().StringVar(&f.format, "format", formatZone, "zone, nsupdate or json")
	return command
}

// The formats of order records.
const (
	formatZone     = "zone"
	formatNSUpdate = "nsupdate"
	formatJSON     = "json"
)

// handRecord is a record in the output of order records --format json.
type handRecord struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	TTL   int    `json:"ttl"`
	Value string `json:"value"`
}

// records prints the records to be added to the zone.
func (s *orderStep) records(ctx context.Context) error {
	view, err := s.pending(ctx)
	if err != nil || view == nil {
		return err
	}
	switch s.flags.format {
	case formatZone:
		for _, r := range view.Records {
			fmt.Println(r.ZoneLine())
		}
	case formatNSUpdate:
		for _, r := range view.Records { // one message each: they may be in several zones
			if server := s.primary(r.Name); server != "" { // else nsupdate asks DNS for it
				fmt.Printf("server %s\n", server)
			}
			fmt.Printf("update add %s. %d IN TXT %q\nsend\n", r.Name, issuer.ByHandTTL, r.Value)
		}
	case formatJSON:
		list := []handRecord{}
		for _, r := range view.Records {
			list = append(list, handRecord{Name: r.Name, Type: "TXT", TTL: issuer.ByHandTTL, Value: r.Value})
		}
		err = term.JSON(os.Stdout, list)
	default:
		return &usageError{fmt.Errorf("--format is zone, nsupdate or json, not %q", s.flags.format)}
	}
	said("next", "when the records are in the zone: %s", s.next("check", "--wait"))
	return err
}

// pending returns the open order; nil, and a note on the terminal, when its records aren't needed any more.
func (s *orderStep) pending(ctx context.Context) (*issuer.OrderView, error) {
	if s.open == nil {
		return nil, s.noOrder()
	}
	view, err := s.known(s.issuer.ShowOrder(ctx, s.request()))
	if err == nil && view.Validated() {
		said("already done", "the CA has validated the order; no record is needed any more")
		s.sayNext(view, "")
		return nil, nil
	}
	return view, err
}

// primary returns the server for updates of a record, for nsupdate: that of the provider that serves its zone by the
// configuration; "" when it has none, or several that may be meant.
func (s *orderStep) primary(record string) string {
	if s.settings == nil {
		return ""
	}
	provider, _, _ := s.session.asker().ProviderFor(record)
	if len(provider.Servers) != 1 {
		return ""
	}
	host, port, err := net.SplitHostPort(provider.Servers[0])
	if err != nil {
		return ""
	}
	return host + " " + port
}

func (f *orderFlags) checkCommand() *cobra.Command {
	command := f.step("check NAME", "Ask every authoritative server for the records",
		"Ask every authoritative server of the zone for the records, as dig would. The exit status is 0 when all have them.", (*orderStep).check)
	command.Flags().BoolVar(&f.wait, "wait", false, "until all have them")
	return command
}

// How often check --wait asks again.
const (
	askFirst = time.Second
	askLast  = 15 * time.Second
)

// check asks the servers for the records, once or until all have them.
func (s *orderStep) check(ctx context.Context) error {
	view, err := s.pending(ctx)
	if err != nil || view == nil {
		return err
	}
	s.release() // a person may take days
	sights, err := s.look(ctx, view.Records)
	if err == nil && s.flags.wait {
		sights, err = s.waitFor(ctx, view.Records, sights)
	}
	if err != nil {
		return err
	}
	if err := showSights(os.Stdout, sights); err != nil {
		return err
	}
	if !allFound(sights) {
		said("next", "%s", s.next("check", "--wait"))
		return &silentError{exitFailed}
	}
	said("next", "%s", s.next("validate"))
	return nil
}

// waitFor asks until all servers have the records, and notes each change on the terminal.
func (s *orderStep) waitFor(ctx context.Context, records []issuer.Record, sights []zones.Lookup) ([]zones.Lookup, error) {
	last := ""
	for pause := askFirst; !allFound(sights); pause = min(2*pause, askLast) {
		if now := tallySights(sights); now != last {
			said("waiting", "%s", now)
			last, pause = now, askFirst
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("interrupted; nothing has changed")
		case <-time.After(pause):
		}
		var err error
		if sights, err = s.look(ctx, records); err != nil {
			return nil, err
		}
	}
	return sights, nil
}

func (s *orderStep) look(ctx context.Context, records []issuer.Record) ([]zones.Lookup, error) {
	asker, err := s.asker()
	if err != nil {
		return nil, err
	}
	values := make([]zones.NameValue, len(records))
	for i, r := range records {
		values[i] = zones.NameValue(r)
	}
	sights := asker.LookFor(ctx, values)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted; nothing has changed")
	}
	return sights, nil
}

func allFound(sights []zones.Lookup) bool {
	for _, sight := range sights {
		if !sight.Found() {
			return false
		}
	}
	return true
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

// tallySights counts in one line how many servers have the records.
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

func (f *orderFlags) validateCommand() *cobra.Command {
	command := f.step("validate NAME", "Let the CA look for the records, and show what it found",
		"Ask the CA to look for the records, wait until it has, and show each authorization. The servers are asked first, since a\n"+
			"validation that fails ends the order: it needs new records then.", (*orderStep).validate)
	command.Flags().BoolVar(&f.unchecked, "unchecked", false, "without asking the servers first")
	return command
}

// validate lets the CA look for the records.
func (s *orderStep) validate(ctx context.Context) error {
	if s.open == nil {
		return s.noOrder()
	}
	view, err := s.known(s.issuer.ShowOrder(ctx, s.request()))
	if err != nil {
		return err
	}
	if view.Validated() {
		said("already done", "the CA has validated the order")
	} else if !s.flags.unchecked {
		sights, err := s.look(ctx, view.Records)
		if err != nil {
			return err
		}
		if !allFound(sights) {
			_ = showSights(os.Stderr, sights)
			return cure.New("not all servers have the records, so the CA wasn't asked",
				fmt.Sprintf("to wait for them: %s; to ask it all the same: %s", s.next("check", "--wait"), s.next("validate", "--unchecked")))
		}
	}
	if view, err = s.known(s.issuer.ValidateOrder(ctx, s.request())); err != nil {
		s.sayFailed(ctx, err)
		return err
	}
	for _, a := range view.Authorizations {
		fmt.Printf("%s\n", a.Object)
	}
	s.sayNext(view, "")
	return nil
}

// sayFailed names the next step after a validation that failed. Most CAs end the order then.
func (s *orderStep) sayFailed(ctx context.Context, err error) {
	if !issuer.FailedValidation(err) {
		return
	}
	if open, _ := s.hand.Open(ctx, s.ca.Name); open != nil {
		said("next", "the order is still open; when the records are right: %s", s.next("validate"))
		return
	}
	said("next", "the order is lost, and its records are of no use any more; to start anew: %s", s.next("new"))
}

func (f *orderFlags) finishCommand() *cobra.Command {
	command := f.step("finish NAME", "Get the certificate and write its files",
		"Finalize the order, download the certificate, keep it in the state directory as the daemon does, and write NAME.crt,\n"+
			"NAME.key and NAME.fullchain.crt.", (*orderStep).finish)
	command.Flags().StringVar(&f.dir, "dir", ".", "write the files into this `DIR`")
	return command
}

// finish gets the certificate, and puts its files right when it is there already.
func (s *orderStep) finish(ctx context.Context) error {
	records, err := s.download(ctx)
	if err != nil {
		return err
	}
	bundle, leaf := s.hand.Bundle()
	s.release()
	if err := s.regain(); err != nil {
		return err
	}
	written, err := writeFiles(s.flags.dir, bundle)
	if err != nil {
		return cure.With(fmt.Errorf("the certificate is kept in the state directory, but its files can't be written: %w", err),
			"for another place: "+s.next("finish", "--dir", "DIR"))
	}
	if len(written) == 0 {
		said("already done", "the certificate and its files are in place; it expires %s", term.Moment(leaf.NotAfter, time.Now()))
		return nil
	}
	for _, path := range written {
		fmt.Println(path)
	}
	said("done", "the certificate expires %s", term.Moment(leaf.NotAfter, time.Now()))
	for _, r := range records {
		said("remove", "from the zone: %s", r.ZoneLine())
	}
	return nil
}

// download stores the certificate of the open order, and returns the records that are no longer needed.
func (s *orderStep) download(ctx context.Context) ([]issuer.Record, error) {
	if s.open == nil {
		if bundle, _ := s.hand.Bundle(); bundle != nil {
			return nil, nil
		}
		return nil, s.noOrder()
	}
	issued, err := s.issuer.FinishOrder(ctx, s.request())
	switch {
	case errors.Is(err, issuer.ErrNoOrder):
		return nil, s.noOrder()
	case errors.Is(err, issuer.ErrNotValidated):
		return nil, cure.With(err, "before that: "+s.next("validate"))
	case err != nil:
		return nil, err
	}
	return s.open.ByHand, s.hand.Save(ctx, s.issuer, s.open, issued)
}

// writeFiles writes the files whose content differs. The key comes first, since a certificate without it is of no use.
func writeFiles(dir string, b *state.Bundle) (written []string, err error) {
	for _, f := range []struct {
		suffix, text string
		mode         os.FileMode
	}{{".key", b.Key, 0o600}, {".crt", b.Leaf, 0o644}, {".fullchain.crt", b.Leaf + b.Chain, 0o644}} {
		path := filepath.Join(dir, b.Name+f.suffix)
		old, err := durable.Read(path, maxPEM)
		if f.text == "" || err == nil && bytes.Equal(old, []byte(f.text)) {
			continue
		}
		if err := (durable.File{Mode: f.mode}).Write(path, []byte(f.text)); err != nil {
			return written, err
		}
		written = append(written, path)
	}
	return written, nil
}
