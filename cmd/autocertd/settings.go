package main

import (
	"log/slog"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/dns01"
	"autocertd/internal/lifecycle"
	"autocertd/internal/zones"
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
	programs  *liveHandler     // receives the logs of the providers' programs; see newProviders
}

// load reads the configuration and builds all that can be built without network or state directory.
func load(path string) (*settings, error) {
	s, err := read(path)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// read loads the configuration. With an error it still returns the files that were looked for, in sources.
func read(path string) (*settings, error) {
	s := &settings{sources: &config.Sources{}, programs: newLiveHandler(slog.DiscardHandler)}
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
			built, err := newProvider(p, slog.New(s.programs).With("provider", p.Name))
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
	served := dns01.Provider{
		Provider: zones.Provider{
			Name:               p.Name,
			Zones:              p.Zones,
			Servers:            built.Servers,
			Key:                built.Key,
			Nameservers:        p.Nameservers,
			Check:              zones.Check(p.Check),
			MinNameservers:     p.MinNameservers,
			Settle:             p.Settle,
			PropagationTimeout: p.PropagationTimeout,
			ExplainKey:         built.ExplainKey,
		},
		Client:  built.Client,
		Manual:  built.Manual,
		Timeout: built.Timeout,
		TTL:     p.TTL,
	}
	return served, nil
}

// newProviders returns the providers with the keys of the moment at which the configuration was read. From now on their
// programs log to the logger.
func newProviders(s *settings, logger *slog.Logger) []dns01.Provider {
	s.programs.replace(logger.Handler())
	return s.providers
}
