package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync/atomic"
	"syscall"
	"time"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/deploy"
	"autocertd/internal/dns01"
	"autocertd/internal/event"
	"autocertd/internal/lifecycle"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/store/files"
	"autocertd/internal/zones"
	"autocertd/issuer"
)

// session holds the configuration of a command, or the flags in its place, and the state directory, opened as the user of the
// daemon.
type session struct {
	command  string    // as this process names itself to others who find its locks
	path     string    // of the configuration
	settings *settings // nil where flags name the CA
	cas      []config.CA
	stateDir string
	store    stateStore
}

// openSession reads the configuration and opens the state directory as the daemon would.
func openSession(path, command string, does intent) (*session, error) {
	settings, err := loadAsDaemon(path, does)
	if err != nil {
		return nil, err
	}
	s := &session{
		command:  command,
		path:     path,
		settings: settings,
		cas:      settings.CAs,
		stateDir: settings.StateDir,
	}
	return s, s.openStore(does)
}

// viewSession looks at the state directory of a configuration that has mistakes. It returns nil where there is none.
func viewSession(path string) *session {
	s := &session{path: path, stateDir: config.StateDir(path)}
	if _, err := os.Stat(s.stateDir); err != nil {
		return nil
	}
	_ = s.openStore(looks) // which only looks later
	return s
}

// enter opens the state directory as the user of the daemon, for commands that have read other files as root before.
func (s *session) enter(does intent) error {
	if err := becomeOwner(s.path, s.stateDir, does); err != nil {
		return err
	}
	return s.openStore(does)
}

func (s *session) openStore(does intent) (err error) {
	if does == looks {
		s.store = viewStore(s.stateDir)
		return nil
	}
	s.store, err = files.Open(s.stateDir, s.command)
	return s.hint(err)
}

// viewStore returns a state directory to look at.
func viewStore(dir string) stateStore { return files.View(dir) }

// stateStore lists the abilities of a state directory that commands and the daemon use.
type stateStore interface {
	state.Store
	store.Watcher
	store.Overwriter
	RemoveStale() error
}

// staleAge is the age from which on RemoveStale removes what writes have left that died.
const staleAge = files.StaleAge

// hint adds to a refusal of the state directory who may.
func (s *session) hint(err error) error { return stateDirHint(s.stateDir, err) }

// issuerConfig returns the configuration of a CA's issuer that only warns.
func (s *session) issuerConfig(ca config.CA) issuer.Config {
	cfg := issuerConfig(ca)
	cfg.ByFlags = s.settings == nil
	cfg.Storage, cfg.Logger = s.store, newLogger(config.Log{Level: slog.LevelWarn})
	return cfg
}

// asker returns what asks DNS, for commands that write nothing.
func (s *session) asker() *zones.Asker {
	return zones.New(zones.Config{}).With(dns01.Facts(newProviders(s.settings, slog.New(slog.DiscardHandler))), s.settings.Resolvers)
}

// solver returns what writes TXT records, for commands that need nothing else. It logs nothing, since the command says what
// it does.
func (s *session) solver() *dns01.Solver {
	solver := dns01.New(dns01.Config{Storage: s.store})
	solver.Adopt(solver.With(newProviders(s.settings, slog.New(slog.DiscardHandler)), s.settings.Resolvers))
	return solver
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

// build holds all that is built from one configuration. It is complete before any part of it is used, and it never changes:
// a reload makes another one. An order that runs keeps the build that it began with.
type build struct {
	settings *settings
	issuers  map[string]*issuer.Issuer
	orders   *dns01.Solver // for the orders of this build
	snapshot *lifecycle.Snapshot
}

// workers is how many certificates are worked on at a time. It is a multiple of the orders that talk to a CA at a time,
// since the others prepare their records, and preparing together is what makes one update of many. Those that wait for DNS
// or for a CA's verdict come on top, see mostAtATime.
func (b *build) workers() int { return b.settings.Concurrency * 8 }

// program issues certificates: what lives as long as the process, and the build of the current settings.
type program struct {
	session  *session
	solver   *dns01.Solver // for all that isn't an order of one build
	deployer *deploy.Deployer
	manager  *lifecycle.Manager
	logger   *slog.Logger
	live     *liveHandler // behind logger, where that can change
	current  atomic.Pointer[build]
	retired  []*build // replaced, and perhaps still worked with; only the user of use and closeRetired touches them
}

// programConfig holds what commands want differently.
type programConfig struct {
	logger   *slog.Logger
	live     *liveHandler // behind logger; nil where that never changes
	wait     bool
	progress func(name string, step issuer.Step)
	wake     func(match func(name string) bool)
}

// program puts the program together for the settings of the session. It asks nobody anything.
func (s *session) program(c programConfig) (*program, error) {
	p := &program{session: s, logger: c.logger, live: c.live}
	p.solver = dns01.New(dns01.Config{
		Storage:       s.store,
		Zones:         zones.New(zones.Config{Logger: c.logger, Answered: func(string) { p.manager.DNSAnswers() }}),
		Logger:        c.logger,
		OpenHostnames: func(ctx context.Context) ([]string, error) { return state.OpenHostnames(ctx, s.store) },
	})
	p.deployer = deploy.New(deploy.Config{
		Store:  s.store,
		Tell:   event.Log(c.logger),
		Logger: c.logger,
		Wait:   c.wait,
		Working: func(name string) {
			if c.progress != nil {
				c.progress(name, issuer.Step{Name: lifecycle.Deploying})
			}
		},
	})
	p.manager = lifecycle.New(lifecycle.Config{
		Storage:  s.store,
		Logger:   c.logger,
		Tell:     event.Log(c.logger),
		Wait:     c.wait,
		Progress: c.progress,
		Wake:     c.wake,
		Deployer: p.deployer,
	})
	return p, p.use(s.settings)
}

// use makes settings the ones that count: it builds first and swaps then, so that an error changes nothing.
func (p *program) use(s *settings) error {
	b, err := p.prepare(s)
	if err != nil {
		return err
	}
	before := p.current.Swap(b)
	if before != nil {
		p.retired = append(p.retired, before)
	}
	if p.live != nil && (before == nil || before.settings.Log != s.Log) {
		p.live.replace(handlerFor(s.Log))
	}
	p.solver.Adopt(b.orders)
	p.manager.Use(b.snapshot)
	return nil
}

func (p *program) settings() *settings { return p.current.Load().settings }

// prepare makes the build of settings. It asks nobody anything, and nothing that runs notices.
func (p *program) prepare(s *settings) (*build, error) {
	if p.session.stateDir != s.StateDir {
		return nil, &usageError{cure.New(fmt.Sprintf("state_dir can't change while the daemon runs, and stays %s until a restart", p.session.stateDir),
			"systemctl restart autocertd")}
	}
	b := &build{settings: s, issuers: map[string]*issuer.Issuer{}}
	for _, ca := range s.CAs {
		iss, err := p.issuer(ca, s.Concurrency)
		if err != nil {
			return nil, fmt.Errorf("CA %s: %w", ca.Name, err)
		}
		b.issuers[ca.Name] = iss
	}
	var hostnames []string
	for _, c := range s.Certificates {
		hostnames = append(hostnames, c.Hostnames...)
	}
	b.orders = p.solver.With(newProviders(s, p.logger), s.Resolvers, hostnames...)
	b.snapshot = lifecycle.NewSnapshot(s.Config, s.outputs, b.issuers, s.window)
	b.snapshot.Schedule = s.schedule
	b.snapshot.Solver = b.orders
	b.snapshot.Reloaded = time.Now()
	return b, nil
}

// issuer returns the issuer for a CA: the one that there is when nothing about it changed, with its account, directory
// and connections.
func (p *program) issuer(ca config.CA, concurrency int) (*issuer.Issuer, error) {
	if now := p.current.Load(); now != nil && now.settings.Concurrency == concurrency {
		for _, old := range now.settings.CAs {
			if reflect.DeepEqual(old, ca) {
				return now.issuers[ca.Name], nil
			}
		}
	}
	cfg := issuerConfig(ca)
	cfg.Concurrency, cfg.Storage, cfg.Solver, cfg.Logger = concurrency, p.session.store, p.solver, p.logger
	return issuer.New(cfg)
}

// closeRetired closes the issuers of builds that nothing works with any more, except those that other builds took over.
func (p *program) closeRetired() {
	inUse := map[*issuer.Issuer]bool{}
	var idle, busy []*build
	for _, b := range p.retired {
		if b.snapshot.Idle() {
			idle = append(idle, b)
		} else {
			busy = append(busy, b)
		}
	}
	for _, b := range append(busy, p.current.Load()) {
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
	p.retired = busy
}

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
func (p *program) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := p.solver.Close(ctx)
	for _, iss := range p.current.Load().issuers {
		iss.Close()
	}
	return err
}
