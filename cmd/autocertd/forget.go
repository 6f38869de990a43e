package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/internal/store"
	"autocertd/internal/suggest"
	"autocertd/internal/term"
)

func forgetCommand(opts *options) *cobra.Command {
	var how forgetMode
	command := &cobra.Command{
		Use:   "forget NAME…",
		Short: "Remove certificates that are no longer configured",
		Long: "Remove what is kept of certificates that are no longer configured: key and certificate, open orders, what is remembered,\n" +
			"and the files below live. Files that outputs have written elsewhere stay, and are named. Nothing is revoked.\n" +
			"autocertd status lists these certificates." + asRoot,
		Example: `  sudo autocertd forget old.corp.example.com --dry-run   # what would be removed?
  sudo autocertd forget old.corp.example.com`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wrongUsage(cmd, "forget takes the names of certificates; autocertd status lists them")
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeUnconfigured(cmd.Context(), opts.config), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			return forget(cmd.Context(), opts.config, names, how)
		},
	}
	command.Flags().BoolVar(&how.dry, "dry-run", false, "say what would be removed, and remove nothing")
	command.Flags().BoolVarP(&how.yes, "yes", "y", false, "don't ask")
	return command
}

// forgetMode holds the flags of forget.
type forgetMode struct{ dry, yes bool }

func forget(ctx context.Context, path string, names []string, how forgetMode) error {
	s, err := openSession(path, "autocertd forget", intent(!how.dry))
	if err != nil {
		return err
	}
	list, err := forgettable(ctx, s, names)
	if err != nil {
		return err
	}
	if !how.dry {
		question := fmt.Sprintf("This removes %s with key and files. Nothing is revoked.", describeKept(list, time.Now()))
		if err := confirm(question, how.yes); err != nil {
			return err
		}
	}
	logger := commandLogger(s.settings.Log, s.command, true)
	for _, k := range list {
		live := filepath.Join(s.stateDir, "live", k.Name)
		if how.dry {
			fmt.Println("would remove", k.Name)
			printElsewhere(k, live)
			continue
		}
		if err := state.Forget(ctx, s.store, k, func() error { return os.RemoveAll(live) }); err != nil {
			return s.hint(fmt.Errorf("%s: %w", k.Name, err))
		}
		logger.Info("certificate forgotten", "certificate", k.Name)
		fmt.Println("removed", k.Name)
		printElsewhere(k, live)
	}
	return nil
}

// forgettable finds what is kept of the names. It refuses those that somebody works for.
func forgettable(ctx context.Context, s *session, names []string) (list []state.Kept, err error) {
	all, err := unconfigured(ctx, s.store, s.stateDir, s.settings.Config)
	if err != nil {
		return nil, s.hint(err)
	}
	var works []config.Certificate // of the daemon, by what it last took over
	if state.RunningDaemon(ctx, s.store) != nil {
		works, _ = worksFor(ctx, s.store) // without a list it works for nobody
	}
	var known []string
	for _, k := range all {
		known = append(known, k.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		called := func(c config.Certificate) bool { return c.Name == name }
		n := slices.IndexFunc(all, func(k state.Kept) bool { return k.Name == name })
		switch {
		case slices.ContainsFunc(s.settings.Certificates, called):
			return nil, wrong(name+" is still configured", "take it out of the configuration first: "+strings.Join(s.settings.Files, ", "))
		case slices.ContainsFunc(works, called):
			return nil, wrong(fmt.Sprintf("the daemon still works for %s, since it hasn't taken over the configuration", name), "autocertd status says why")
		case n < 0:
			return nil, wrong(fmt.Sprintf("nothing is kept of %q", name), strings.TrimSpace(suggest.DidYouMean(name, known)+" autocertd status lists what is"))
		}
		list = append(list, all[n])
	}
	return list, nil
}

// unconfigured returns what the state directory holds for certificates that the configuration doesn't have any more.
func unconfigured(ctx context.Context, store store.Store, stateDir string, cfg *config.Config) ([]state.Kept, error) {
	configured := map[string]bool{}
	for _, c := range cfg.Certificates {
		configured[c.Name] = true
	}
	list, err := state.Unconfigured(ctx, store, state.LocalNode, func(name string) bool { return configured[name] })
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, k := range list {
		known[k.Name] = true
	}
	live, err := os.ReadDir(filepath.Join(stateDir, "live"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, entry := range live { // files whose bundle is gone
		if name := entry.Name(); entry.IsDir() && !strings.HasPrefix(name, ".") && !configured[name] && !known[name] {
			list = append(list, state.Kept{Name: name})
		}
	}
	slices.SortFunc(list, func(a, b state.Kept) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// completeUnconfigured returns the names that forget takes.
func completeUnconfigured(ctx context.Context, path string) (names []string) {
	cfg, err := config.Load(path, config.Checks{})
	if err != nil {
		return nil
	}
	list, _ := unconfigured(ctx, viewStore(cfg.StateDir), cfg.StateDir, cfg) // a shell can't be told why not
	for _, k := range list {
		names = append(names, k.Name)
	}
	return names
}

// describeKept names certificates, each with the time that it has left.
func describeKept(list []state.Kept, now time.Time) string {
	words := make([]string, len(list))
	for i, k := range list {
		switch words[i] = k.Name; {
		case k.NotAfter.IsZero():
		case now.Before(k.NotAfter):
			words[i] += fmt.Sprintf(" (valid for %s)", term.Span(k.NotAfter.Sub(now)))
		default:
			words[i] += " (expired)"
		}
	}
	return strings.Join(words, ", ")
}

// printElsewhere names the files that outputs have written, which stay: services may still read them.
func printElsewhere(k state.Kept, live string) {
	for _, place := range k.Outputs {
		if place != live {
			fmt.Printf("  stays: %s; when no service reads it any more: rm -r %s\n", place, quoteWord(place))
		}
	}
}
