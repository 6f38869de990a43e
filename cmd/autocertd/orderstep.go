package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/event"
	"autocertd/internal/lifecycle"
	"autocertd/internal/store"
	"autocertd/internal/term"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// orderStep is one step of an order while it runs. It holds the certificate's lock until end.
type orderStep struct {
	*session
	flags   *orderFlags
	cert    config.Certificate
	ca      config.CA
	issuer  *issuer.Issuer
	hand    *lifecycle.Hand
	open    *issuer.OpenOrder // nil when there is none
	unnamed bool              // nothing says which hostnames are wanted but the name
	regain  func() error      // makes root of a process that acts as the state directory's owner
}

// begin finds the certificate, takes its lock, and finds its CA and open order.
func (f *orderFlags) begin(ctx context.Context, step, name string) (*orderStep, error) {
	if f.directory != "" && f.ca != "" {
		return nil, &usageError{errors.New("--directory and --ca don't go together: one names the CA by its URL, the other by its name in the configuration")}
	}
	if _, err := os.Stat(f.config); f.directory == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, wrong("there is no configuration "+f.config, "name the CA by --directory, or the file by --config")
	}
	s := &orderStep{flags: f}
	var err error
	if s.session, err = f.load("order " + step); err != nil {
		return nil, err
	}
	cas, err := s.wish(step, name)
	if err != nil {
		return nil, err
	}
	if s.regain, err = actAsOwner(s.path, s.stateDir); err != nil {
		return nil, err
	}
	if err := s.openStore(writes); err != nil {
		return nil, err
	}
	if s.settings == nil { // use the account that a daemon has here, under its name
		cas[0].Name = s.knownAs(ctx, cas[0])
	}
	if err := s.take(ctx); err != nil {
		return nil, s.hint(err)
	}
	if err := s.chooseCA(ctx, cas); err != nil {
		s.hand.Release()
		return nil, err
	}
	return s, nil
}

func (s *orderStep) end() {
	s.release()
	s.issuer.Close()
}

// release gives the lock back. Nothing is changed after it.
func (s *orderStep) release() {
	if s.hand != nil {
		s.hand.Release()
		s.hand = nil
	}
}

// wish finds the certificate and the CAs that may have its order, in the configuration or in the flags.
func (s *orderStep) wish(step, name string) (cas []config.CA, err error) {
	f := s.flags
	adhoc := config.FlagCertificate{Name: name, Hostnames: f.hostnames, KeyType: f.keyType, Profile: f.profile}
	if len(adhoc.Hostnames) == 0 && step == "new" {
		adhoc.Name, adhoc.Hostnames = "", []string{name}
		s.unnamed = true
	}
	cas = s.cas
	if s.settings == nil {
		s.cert, err = adhoc.Certificate()
		return cas, err
	}
	n := slices.IndexFunc(s.settings.Certificates, func(c config.Certificate) bool { return c.Name == name })
	if n < 0 || len(f.hostnames) > 0 {
		if s.cert, err = adhoc.Certificate(); err == nil && step == "new" && len(cas) > 1 && f.ca == "" {
			err = wrong(fmt.Sprintf("nothing says which CA issues for %s, and there are several", s.cert.Name), "name one by --ca")
		}
	} else {
		s.cert, s.unnamed = s.settings.Certificates[n], false
		cas = nil
		for _, ca := range s.cert.CAs {
			cas = append(cas, s.configured(ca)...)
		}
	}
	if f.ca != "" {
		if cas = s.configured(f.ca); len(cas) == 0 {
			return nil, &usageError{fmt.Errorf("no CA is called %q in the configuration", f.ca)}
		}
	}
	return cas, err
}

// configured returns the CA with that name, if there is one.
func (s *orderStep) configured(name string) []config.CA {
	n := slices.IndexFunc(s.cas, func(ca config.CA) bool { return ca.Name == name })
	if n < 0 {
		return nil
	}
	return s.cas[n : n+1]
}

// takeSoon is the wait for a lock before its holder is named.
const takeSoon = time.Second

// take takes the certificate's lock, and names the holder that it waits for.
func (s *orderStep) take(ctx context.Context) (err error) {
	logger := newLogger(config.Log{Level: slog.LevelWarn})
	hand := lifecycle.Config{Storage: s.store, Logger: logger, Tell: event.Log(logger)}
	soon, cancel := context.WithTimeout(ctx, takeSoon)
	defer cancel()
	s.hand, err = lifecycle.TakeInHand(soon, hand, s.cert)
	if held, ok := errors.AsType[*store.HeldError](err); ok && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "waiting: %s\n", term.Text(held))
		s.hand, err = lifecycle.TakeInHand(ctx, hand, s.cert)
	}
	return err
}

// chooseCA finds the CA that has the open order, else the first, and builds its issuer.
func (s *orderStep) chooseCA(ctx context.Context, cas []config.CA) error {
	s.ca = cas[0]
	for _, ca := range cas {
		open, err := s.hand.Open(ctx, ca.Name)
		if err != nil {
			return err
		}
		if open != nil {
			s.ca, s.open = ca, open
			break
		}
	}
	var trace io.Writer
	if s.flags.verbose {
		trace = os.Stderr
	}
	cfg := s.issuerConfig(s.ca)
	cfg.Profile = "" // requests name theirs
	cfg.Transport = issuer.NewTracer(s.ca.Roots, trace)
	var err error
	s.issuer, err = issuer.New(cfg)
	return err
}

// request returns the request that goes on with the open order.
func (s *orderStep) request() issuer.Request { return s.hand.GoingOn(s.ca.Name, s.open) }

// asker returns the asker of DNS. No provider is needed.
func (s *orderStep) asker() (*zones.Asker, error) {
	if s.settings != nil && len(s.flags.nameservers) == 0 {
		return s.session.asker(), nil
	}
	servers, err := config.Addresses(s.flags.nameservers)
	if err != nil {
		return nil, err
	}
	var resolvers []string
	if s.settings != nil {
		resolvers = s.settings.Resolvers
	}
	byHand := zones.Provider{Name: "by hand", Servers: servers, Nameservers: servers}
	return zones.New(zones.Config{}).With([]zones.Provider{byHand}, resolvers), nil
}

// noOrder returns the error for a certificate without an open order.
func (s *orderStep) noOrder() error {
	return cure.New("no order is open for "+s.cert.Name, "to make one: "+s.next("new"))
}

// known replaces the error for an order that the CA has given up by noOrder.
func (s *orderStep) known(view *issuer.OrderView, err error) (*issuer.OrderView, error) {
	if errors.Is(err, issuer.ErrNoOrder) {
		return nil, s.noOrder()
	}
	return view, err
}

// orderFlags holds the flags of all steps.
type orderFlags struct {
	caFlags
	ca          string
	nameservers []string
	verbose     bool

	hostnames []string // of new
	keyType   string
	profile   string
	force     bool

	format    string // of records
	wait      bool   // of check
	unchecked bool   // of validate
	dir       string // of finish
}

// next returns the command of a step, to be pasted.
func (s *orderStep) next(step string, more ...string) string {
	f := s.flags
	words := append([]string{"autocertd", "order", step, s.cert.Name}, more...)
	add := func(flag, value string) {
		if value != "" {
			words = append(words, flag, quoteWord(value))
		}
	}
	if f.directory == "" && f.config != cmp.Or(os.Getenv(configEnv), defaultConfig) {
		add("--config", f.config)
	}
	add("--ca", f.ca)
	add("--directory", f.directory)
	for _, file := range f.roots {
		add("--roots", file)
	}
	for _, host := range f.hosts {
		add("--ca-host", host)
	}
	add("--state-dir", f.stateDir)
	for _, server := range f.nameservers {
		add("--nameserver", server)
	}
	return strings.Join(words, " ")
}

// said writes a note, which is no result, to standard error.
func said(what, format string, args ...any) {
	term.On(os.Stderr).Say(term.Dim, what+":", fmt.Sprintf(format, args...))
}

// sayNext names the next step: the one given, or finish after a validation.
func (s *orderStep) sayNext(view *issuer.OrderView, step string) {
	if view.Validated() {
		step = s.next("finish")
	}
	said("next", "%s", step)
}
