package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/issuer"
)

// caFlags names a CA and the place of its account, for commands that need nothing else. With a directory no configuration
// is read.
type caFlags struct {
	*options
	directory   string
	email       string
	acceptTerms bool
	roots       []string
	hosts       []string
	stateDir    string
}

// add adds the flags to a command.
func (f *caFlags) add(command *cobra.Command) {
	flags := command.PersistentFlags()
	flags.StringVar(&f.directory, "directory", "", "the CA, by the `URL` of its directory; no configuration is read then")
	flags.StringArrayVar(&f.roots, "roots", nil, "with --directory: trust the certificates in this `FILE` instead of the system's")
	flags.StringArrayVar(&f.hosts, "ca-host", nil, "with --directory: another `HOST` that the CA's URLs may lead to")
	flags.StringVar(&f.stateDir, "state-dir", "", "another state directory, a `DIR`")
}

// load returns the session of a command, from the configuration or from the flags in its place. It has not entered the
// state directory yet.
func (f *caFlags) load(command string) (*session, error) {
	if f.directory == "" && len(f.roots)+len(f.hosts) > 0 {
		return nil, wrong("--roots and --ca-host go with --directory", "of a configured CA they stand in its table: roots = […], hosts = […]")
	}
	s := &session{command: "autocertd " + command, path: f.config, stateDir: config.DefaultStateDir}
	if f.directory != "" {
		ca, err := config.FlagCA{Directory: f.directory, Email: f.email, Roots: f.roots, Hosts: f.hosts}.CA()
		if err != nil {
			return nil, &usageError{err}
		}
		ca.AcceptTerms = f.acceptTerms
		s.cas = []config.CA{ca}
	} else {
		var err error
		if s.settings, err = loadByHand(f.config); err != nil {
			return nil, err
		}
		s.cas, s.stateDir = s.settings.CAs, s.settings.StateDir
	}
	s.stateDir = cmp.Or(f.stateDir, s.stateDir)
	return s, nil
}

// open returns the session of a command, which has entered the state directory.
func (f *caFlags) open(command string) (*session, error) {
	s, err := f.load(command)
	if err != nil {
		return nil, err
	}
	return s, s.enter(writes)
}

// issuer builds the issuer of the CA with that name; "" stands for the only CA.
func (s *session) issuer(ctx context.Context, name string) (*issuer.Issuer, error) {
	ca, err := s.choose(ctx, name)
	if err != nil {
		return nil, err
	}
	return issuer.New(s.issuerConfig(ca))
}

func (s *session) choose(ctx context.Context, name string) (config.CA, error) {
	if s.settings == nil {
		ca := s.cas[0]
		ca.Name = cmp.Or(name, s.knownAs(ctx, ca))
		return ca, nil
	}
	n := slices.IndexFunc(s.cas, func(ca config.CA) bool { return ca.Name == name })
	if name == "" && len(s.cas) == 1 {
		n = 0
	}
	if n >= 0 {
		return s.cas[n], nil
	}
	names := make([]string, len(s.cas))
	for i, ca := range s.cas {
		names[i] = ca.Name
	}
	all := strings.Join(names, ", ")
	if name == "" {
		return config.CA{}, wrong("there are several CAs", "name one of "+all)
	}
	return config.CA{}, wrong(fmt.Sprintf("no CA is called %q in the configuration", name), "there is "+all)
}

// knownAs returns the name under which the state directory has an account at a CA that flags name. When there is none, or
// more than one, it is the one that the flags lead to.
func (s *session) knownAs(ctx context.Context, ca config.CA) string {
	if names, err := state.AccountNames(ctx, s.store, ca.Directory); err == nil && len(names) == 1 {
		return names[0]
	}
	return ca.Name
}
