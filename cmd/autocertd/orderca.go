package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"autocertd/internal/durable"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/term"
	"autocertd/issuer"
)

// The steps that talk to the CA.

// new makes the order, unless there is one or no need of one.
func (s *orderStep) new(ctx context.Context) error {
	if b, _ := s.hand.Bundle(); s.unnamed && s.open == nil && b != nil && b.CSR == nil && !sameHostnames(b.Hostnames, s.cert.Hostnames) {
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
	case s.open != nil && !sameHostnames(s.open.Hostnames, wanted):
		return fmt.Errorf("an order for %s is open already, since %s; to give it up: %s", strings.Join(s.open.Hostnames, ", "),
			s.open.Created.Local().Format(time.DateTime), s.next("new", "--force"))
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

func sameHostnames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// mayRegister refuses when an account is needed and the terms of service aren't accepted. A table in the configuration
// accepts them.
func (s *orderStep) mayRegister(ctx context.Context) error {
	if s.ca.AcceptTerms {
		return nil
	}
	_, err := s.store.Load(ctx, issuer.AccountKey(s.ca.Name, s.ca.Directory)+"/account.json")
	if !errors.Is(err, store.ErrNotExist) {
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
	return &usageError{fmt.Errorf("there is no account at %s yet; read %s, and add --accept-terms", s.ca.Directory, terms)}
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
			return fmt.Errorf("not all servers have the records, so the CA wasn't asked; to wait for them: %s; to ask it all the same: %s",
				s.next("check", "--wait"), s.next("validate", "--unchecked"))
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

// sayFailed says how to go on after a validation that failed. Most CAs end the order then.
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
		return fmt.Errorf("the certificate is kept in the state directory, but its files can't be written: %w; "+
			"for another place: %s", err, s.next("finish", "--dir", "DIR"))
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

// download gets the certificate of the open order into storage, and returns the records that it no longer needs.
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
		return nil, fmt.Errorf("%w; before that: %s", err, s.next("validate"))
	case err != nil:
		return nil, err
	}
	return s.open.ByHand, s.hand.Save(ctx, s.issuer, s.open, issued)
}

// writeFiles writes the files that aren't right yet. The key comes first: a certificate without its key is of no use.
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
