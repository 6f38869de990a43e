package main

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"syscall"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/dns01"
	"autocertd/internal/lifecycle"
	"autocertd/internal/storage"
	"autocertd/issuer"
	"autocertd/providers"
	"autocertd/scheduler"
)

// settings is a configuration with everything built from its text that can be wrong.
type settings struct {
	*config.Config
	schedule scheduler.Schedule
	window   scheduler.Window
}

// load reads the configuration and builds what can be built without asking anybody.
func load(path string) (*settings, error) {
	s := &settings{}
	cfg, err := config.Load(path, config.Checks{
		Schedule: func(text string) (err error) {
			s.schedule, err = scheduler.ParseSchedule(text)
			return err
		},
		Window: func(text string) (err error) {
			s.window, err = scheduler.ParseWindow(text)
			return err
		},
		Provider: func(p *config.Provider) error {
			_, err := newProvider(p, nil) // the one that works is built when it is known where to log
			return err
		},
		Pace:     s.pace,
		Meet:     s.meet,
		Lifetime: lifetimeOf,
	})
	if err != nil {
		return nil, &usageError{err}
	}
	s.Config = cfg
	return s, nil
}

// newProvider builds a provider from its table.
func newProvider(p *config.Provider, logger *slog.Logger) (dns01.Provider, error) {
	built, err := providers.New(p.Type, providers.Options{Decode: p.Decode, Dir: p.Dir(), Logger: logger})
	if err != nil {
		return dns01.Provider{}, err
	}
	served := dns01.Provider{Name: p.Name, Client: built.Client, Zones: p.Zones, Servers: built.Servers, Nameservers: p.Nameservers,
		Check: dns01.Check(p.Check), MinNameservers: p.MinNameservers, Settle: p.Settle,
		PropagationTimeout: p.PropagationTimeout, TTL: p.TTL, Timeout: built.Timeout}
	if k := built.Key; k != nil {
		served.Key = &dns01.Key{Name: k.Name, Algorithm: k.Algorithm, Secret: k.Secret}
	}
	return served, nil
}

// newProviders builds all providers.
func newProviders(s *settings, logger *slog.Logger) ([]dns01.Provider, error) {
	list := make([]dns01.Provider, len(s.Providers))
	for i, p := range s.Providers {
		var err error
		if list[i], err = newProvider(p, logger.With("provider", p.Name)); err != nil {
			return nil, fmt.Errorf("provider %s: %w", p.Name, err)
		}
	}
	return list, nil
}

// app is the program put together: what lives as long as the process, and what the current settings built.
type app struct {
	settings *settings
	store    *storage.Files
	solver   *dns01.Solver
	manager  *lifecycle.Manager
	issuers  map[string]*issuer.Issuer
	logger   *slog.Logger
}

// appOptions are what commands want differently.
type appOptions struct {
	command  string // how this process names itself to others who find its locks
	logger   *slog.Logger
	wait     bool
	progress func(name string, step issuer.Step)
}

// newApp builds the program for the settings. It asks nobody anything.
func newApp(s *settings, o appOptions) (*app, error) {
	store, err := storage.OpenFiles(s.StateDir, o.command)
	if err != nil {
		return nil, stateDirHint(s.StateDir, err)
	}
	a := &app{store: store, logger: o.logger}
	a.solver = dns01.New(dns01.Config{Storage: store, Resolvers: s.Resolvers, Logger: o.logger,
		Wanted: func(ctx context.Context) ([]string, error) { return lifecycle.OpenHostnames(ctx, store) }})
	a.manager = lifecycle.New(lifecycle.Config{Storage: store, Logger: o.logger, Wait: o.wait, Progress: o.progress,
		Deployer: deploy.New(deploy.Config{})})
	return a, a.use(s)
}

// use makes settings the ones that count: it builds first and swaps then, so that an error changes nothing.
func (a *app) use(s *settings) error {
	if a.settings != nil && a.settings.StateDir != s.StateDir {
		return &usageError{fmt.Errorf("state_dir can't change while the daemon runs (%s to %s); restart it", a.settings.StateDir, s.StateDir)}
	}
	issuers := map[string]*issuer.Issuer{}
	for _, ca := range s.CAs {
		iss, err := a.issuer(ca, s.Concurrency)
		if err != nil {
			return fmt.Errorf("CA %s: %w", ca.Name, err)
		}
		issuers[ca.Name] = iss
	}
	served, err := newProviders(s, a.logger)
	if err != nil {
		return err
	}
	a.solver.UseResolvers(s.Resolvers)
	a.solver.Configure(served)
	snapshot := lifecycle.NewSnapshot(s.Config, issuers, s.window)
	snapshot.Reloaded = time.Now()
	a.manager.Use(snapshot)
	a.settings, a.issuers = s, issuers
	return nil
}

// issuer returns the issuer for a CA: the one that there is when nothing about it changed, with its account, directory
// and connections.
func (a *app) issuer(ca config.CA, concurrency int) (*issuer.Issuer, error) {
	if a.settings != nil && a.settings.Concurrency == concurrency {
		for _, old := range a.settings.CAs {
			if reflect.DeepEqual(old, ca) {
				return a.issuers[ca.Name], nil
			}
		}
	}
	cfg := issuerConfig(ca)
	cfg.Concurrency, cfg.Storage, cfg.Solver, cfg.Logger = concurrency, a.store, a.solver, a.logger
	return issuer.New(cfg)
}

// issuerConfig is what a CA's table says to its issuer.
func issuerConfig(ca config.CA) issuer.Config {
	cfg := issuer.Config{Name: ca.Name, Directory: ca.Directory, Email: ca.Email, AcceptTerms: ca.AcceptTerms,
		Roots: ca.Roots, Hosts: ca.Hosts, Profile: ca.Profile, PreferredChain: ca.PreferredChain, UserAgent: userAgent()}
	if ca.EAB != nil {
		cfg.EAB = &issuer.EAB{KeyID: ca.EAB.KeyID, HMACKey: ca.EAB.HMACKey.Reveal()}
	}
	return cfg
}

// workers is how many certificates are worked on at a time. It is a multiple of the orders that talk to a CA at a time,
// since the others prepare their records, and preparing together is what makes one update of many. Those that wait for DNS
// or for a CA's verdict come on top, see mostAtATime.
func (a *app) workers() int { return a.settings.Concurrency * 8 }

// mostAtATime is how many certificates are worked on or waited for at a time: each has a lock, and in its turn a socket or
// two, so that a quarter of the files that the process may open is left to locks.
func mostAtATime() int {
	const most = 4096
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur/4 > most {
		return most
	}
	return max(int(limit.Cur/4), 1)
}

// closeTimeout bounds how long records may take to be removed when the program ends. systemd waits 90 s.
const closeTimeout = 30 * time.Second

// close removes what is still published. What it doesn't manage is in the journal.
func (a *app) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := a.solver.Close(ctx)
	for _, iss := range a.issuers {
		iss.Close()
	}
	return err
}
