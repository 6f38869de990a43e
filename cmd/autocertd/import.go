package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/migrate"
	"autocertd/internal/state"
	"autocertd/internal/suggest"
	"autocertd/internal/term"
)

// importOptions are the flags of import.
type importOptions struct {
	directories   []string
	dryRun, force bool
}

func importCommand(opts *options) *cobra.Command {
	var o importOptions
	clients := migrate.Clients()
	command := &cobra.Command{
		Use:   "import " + strings.Join(clients, "|") + " DIR",
		Short: "Take over the accounts and certificates of another client",
		Long: "Read what another client keeps in DIR, save its accounts and certificates in the state directory, and print the\n" +
			"configuration that takes its place. The other client's files stay as they are. Certificates are renewed by the account that\n" +
			"got them, so that the CA sees renewals. Nothing that is saved already is overwritten without --force.",
		Example: `  sudo autocertd import certbot /etc/letsencrypt --dry-run
  sudo autocertd import certbot /etc/letsencrypt | sudo tee /etc/autocertd/conf.d/certbot.toml
  sudo autocertd import lego /var/lib/lego --directory https://ca.corp.example.com/acme/directory`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && !slices.Contains(clients, args[0]) {
				return wrongUsage(cmd, strings.TrimSuffix(fmt.Sprintf("%q is no client that can be imported: %s; %s", args[0], strings.Join(clients, ", "),
					suggest.DidYouMean(args[0], clients)), "; "))
			}
			if len(args) != 2 || args[1] == "" {
				return wrongUsage(cmd, fmt.Sprintf("import wants a client, one of %s, and its folder", strings.Join(clients, ", ")))
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return clients, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return importTree(cmd.Context(), opts.config, args[0], args[1], o)
		},
	}
	command.Flags().BoolVar(&o.dryRun, "dry-run", false, "only say what would be taken over")
	command.Flags().BoolVar(&o.force, "force", false, "overwrite accounts and certificates that are saved already")
	command.Flags().StringArrayVar(&o.directories, "directory", nil, "the directory `URL` of a CA, where the client keeps less of it")
	return command
}

func importTree(ctx context.Context, path, client, dir string, o importOptions) error {
	if err := readableHere(path); err != nil {
		return err
	}
	cfg, err := config.Load(path, config.Checks{})
	if err != nil {
		if _, missing := os.Stat(path); missing == nil {
			printWarnings([]string{fmt.Sprintf("%s has mistakes, so only its state_dir counts here; autocertd check names them", path)})
		}
		cfg = &config.Config{StateDir: config.StateDir(path)}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	names := map[string]string{}
	for _, ca := range cfg.CAs {
		names[ca.Directory] = ca.Name
	}
	tree, err := migrate.Read(client, dir, migrate.Options{Directories: o.directories, Names: names})
	if errors.Is(err, fs.ErrPermission) {
		return cure.With(err, "run it as root")
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok && failed.Path == dir {
		usual := map[string]string{"certbot": "/etc/letsencrypt", "lego": "/var/lib/lego or .lego", "acme.sh": "/root/.acme.sh", "dehydrated": "/var/lib/dehydrated"}
		return &usageError{cure.With(fmt.Errorf("%s can't be read: %w", dir, failed.Err), fmt.Sprintf("name the folder of %s, usually %s", client, usual[client]))}
	}
	if err != nil {
		return err
	}
	s := &session{command: "autocertd import", path: path, stateDir: cfg.StateDir}
	if err := s.enter(intent(!o.dryRun)); err != nil { // the other client's files are read by now
		return err
	}
	var store state.Store = s.store
	if o.dryRun {
		store = migrate.DryRun{Reader: s.store}
	}
	failed := printImported(tree, tree.Write(ctx, store, o.force), o.dryRun)
	if _, err := fmt.Print(tree.TOML(known(cfg))); err != nil {
		return err
	}
	if failed {
		return &silentError{exitFailed}
	}
	return nil
}

// known returns the parts that the configuration has already.
func known(cfg *config.Config) migrate.Known {
	k := migrate.Known{Providers: len(cfg.Providers)}
	for _, ca := range cfg.CAs {
		k.CAs = append(k.CAs, ca.Name)
	}
	for _, c := range cfg.Certificates {
		k.Names, k.KeyTypes = append(k.Names, c.Name), append(k.KeyTypes, c.KeyType)
	}
	return k
}

// printImported writes a line for each thing that was taken over or left out, and reports whether one failed.
func printImported(tree *migrate.Tree, results []migrate.Result, dryRun bool) (failed bool) {
	out := term.On(os.Stderr)
	done := "taken over:"
	if dryRun {
		done = "would be taken over:"
	}
	for _, r := range results {
		line := out.Paint(term.Green, done) + " " + r.What
		switch {
		case errors.Is(r.Err, fs.ErrExist):
			line = fmt.Sprintf("%s %s: %v; --force overwrites it", out.Paint(term.Yellow, "kept:"), r.What, r.Err)
		case r.Err != nil:
			line = fmt.Sprintf("%s %s: %v", out.Paint(term.Red, "failed:"), r.What, r.Err)
		case !r.Changed:
			line = "there already: " + r.What
		}
		failed = failed || r.Err != nil
		fmt.Fprintln(out.Out, line)
	}
	for _, note := range append(tree.Notes, tree.LeftOut()...) {
		out.Say(term.Yellow, "left out:", note)
	}
	if dryRun {
		fmt.Fprintln(out.Out, "nothing was changed")
	} else {
		fmt.Fprintf(out.Out, "Next: put what is printed into a file in conf.d, run autocertd check and autocertd renew, and switch %s off.\n", tree.Client)
	}
	return failed
}
