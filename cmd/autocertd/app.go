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
	"autocertd/internal/store/files"
	"autocertd/issuer"
	"autocertd/providers"
	"autocertd/scheduler"
)

// settings is a configuration with everything built from its text that can be wrong.
type settings struct {
	*config.Config
	sources   *config.Sources
	schedule  scheduler.Schedule
	window    scheduler.Window
	outputs   deploy.Outputs
	providers []dns01.Provider // of Providers, in their order
	told      *liveHandler     // where the programs of providers log to; see newProviders
}

// load reads the configuration and builds what can be built without asking anybody.
func load(path string) (*settings, error) {
	s, err := read(path)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// read is load that tells of a configuration with mistakes at least which files it was looked for in.
func read(path string) (*settings, error) {
	s := &settings{sources: &config.Sources{}, told: newLiveHandler(slog.DiscardHandler)}
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
			built, err := newProvider(p, slog.New(s.told).With("provider", p.Name))
			s.providers = append(s.providers, built)
			return err
		},
		Outputs:    func(c *config.Config, tables []config.Table) { s.outputs = lifecycle.BuildOutputs(c, tables) },
		OutputKeys: deploy.Keys(),
		Sources:    s.sources,
	})
	if err != nil {
		return s, &usageError{err}
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

// newProviders returns the providers, which were built when the configuration was read: so their keys are those of that
// moment. From now on their programs log to the logger.
func newProviders(s *settings, logger *slog.Logger) []dns01.Provider {
	s.told.replace(logger.Handler())
	return s.providers
}

// build holds all that is built from one configuration. It is complete before any part of it is used, and it never changes:
// a reload makes another one. An order that runs keeps the build that it began with.
type build struct {
	settings *settings
	issuers  map[string]*issuer.Issuer
	orders   *dns01.Solver // for the orders of this build
	snapshot *lifecycle.Snapshot
}

// app is the program put together: what lives as long as the process, and what the current settings built.
type app struct {
	*build   // the daemon's changes under its mu
	stateDir string
	store    *files.Store
	solver   *dns01.Solver // for all that isn't an order of one build
	manager  *lifecycle.Manager
	logger   *slog.Logger
	live     *liveHandler // behind logger, where that can change
	retired  []*build     // replaced, and perhaps still worked with
}

// appOptions are what commands want differently.
type appOptions struct {
	command  string // how this process names itself to others who find its locks
	logger   *slog.Logger
	live     *liveHandler // behind logger; nil where that never changes
	wait     bool
	progress func(name string, step issuer.Step)
	wake     func(match func(name string) bool)
}

// newApp builds the program for the settings. It asks nobody anything.
func newApp(s *settings, o appOptions) (*app, error) {
	store, err := files.Open(s.StateDir, o.command)
	if err != nil {
		return nil, stateDirHint(s.StateDir, err)
	}
	a := &app{stateDir: s.StateDir, store: store, logger: o.logger, live: o.live}
	a.solver = dns01.New(dns01.Config{Storage: store, Resolvers: s.Resolvers, Logger: o.logger,
		Wanted:   func(ctx context.Context) ([]string, error) { return lifecycle.OpenHostnames(ctx, store) },
		Answered: func(string) { a.manager.DNSAnswers() }})
	a.manager = lifecycle.New(lifecycle.Config{Storage: store, Logger: o.logger, Wait: o.wait, Progress: o.progress, Wake: o.wake,
		Deployer: deploy.New(deploy.Config{Working: func(name string) {
			if o.progress != nil {
				o.progress(name, issuer.Step{Name: lifecycle.Deploying})
			}
		}})})
	return a, a.use(s)
}

// use makes settings the ones that count: it builds first and swaps then, so that an error changes nothing.
func (a *app) use(s *settings) error {
	b, err := a.prepare(s)
	if err != nil {
		return err
	}
	a.swap(b)
	return nil
}

// prepare makes the build of settings. It asks nobody anything, and nothing that runs notices.
func (a *app) prepare(s *settings) (*build, error) {
	if a.build != nil && a.settings.StateDir != s.StateDir {
		return nil, &usageError{fmt.Errorf("state_dir can't change while the daemon runs, and stays %s until a restart: systemctl restart autocertd", a.settings.StateDir)}
	}
	b := &build{settings: s, issuers: map[string]*issuer.Issuer{}}
	for _, ca := range s.CAs {
		iss, err := a.issuer(ca, s.Concurrency)
		if err != nil {
			return nil, fmt.Errorf("CA %s: %w", ca.Name, err)
		}
		b.issuers[ca.Name] = iss
	}
	var hostnames []string
	for _, c := range s.Certificates {
		hostnames = append(hostnames, c.Hostnames...)
	}
	b.orders = a.solver.With(newProviders(s, a.logger), s.Resolvers, hostnames...)
	b.snapshot = lifecycle.NewSnapshot(s.Config, s.outputs, b.issuers, s.window)
	b.snapshot.Schedule = s.schedule
	b.snapshot.Solver = b.orders
	b.snapshot.Reloaded = time.Now()
	return b, nil
}

// swap makes a build the one that counts for all that begins from now on.
func (a *app) swap(b *build) {
	if a.build != nil {
		a.retired = append(a.retired, a.build)
	}
	if a.live != nil && (a.build == nil || a.settings.Log != b.settings.Log) {
		a.live.replace(handlerFor(b.settings.Log))
	}
	a.build = b
	a.solver.Adopt(b.orders)
	a.manager.Use(b.snapshot)
}

// closeRetired closes the issuers of builds that nothing works with any more, except those that other builds took over.
func (a *app) closeRetired() {
	inUse := map[*issuer.Issuer]bool{}
	var idle, busy []*build
	for _, b := range a.retired {
		if b.snapshot.Idle() {
			idle = append(idle, b)
		} else {
			busy = append(busy, b)
		}
	}
	for _, b := range append(busy, a.build) {
		for _, iss := range b.issuers {
			inUse[iss] = true
		}
	}
	for _, b := range idle {
		for _, iss := range b.issuers {
			if !inUse[iss] {
				iss.Close()
			}
		}
	}
	a.retired = busy
}

// issuer returns the issuer for a CA: the one that there is when nothing about it changed, with its account, directory
// and connections.
func (a *app) issuer(ca config.CA, concurrency int) (*issuer.Issuer, error) {
	if a.build != nil && a.settings.Concurrency == concurrency {
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
	cfg := issuer.Config{
		Name:           ca.Name,
		Directory:      ca.Directory,
		Email:          ca.Email,
		AcceptTerms:    ca.AcceptTerms,
		Roots:          ca.Roots,
		Hosts:          ca.Hosts,
		Profile:        ca.Profile,
		PreferredChain: ca.PreferredChain,
		Challenges:     ca.Challenges,
		UserAgent:      userAgent(),
	}
	if ca.EAB != nil {
		cfg.EAB = &issuer.EAB{KeyID: ca.EAB.KeyID, HMACKey: ca.EAB.HMACKey.Reveal()}
	}
	return cfg
}

// workers is how many certificates are worked on at a time. It is a multiple of the orders that talk to a CA at a time,
// since the others prepare their records, and preparing together is what makes one update of many. Those that wait for DNS
// or for a CA's verdict come on top, see mostAtATime.
func (a *app) workers() int { return a.settings.Concurrency * 8 }

// mostAtATime returns the number of certificates that may be in work at a time, those included that wait. Each holds the file
// of its lock, and from time to time a socket or two, so locks may take a quarter of the files that the process may open.
func mostAtATime() int {
	const most = 2048
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
