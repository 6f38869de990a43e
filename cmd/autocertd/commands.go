package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
)

const (
	defaultConfig = "/etc/autocertd/config.toml"
	configEnv     = "AUTOCERTD_CONFIG"
)

// options are the flags of all commands.
type options struct {
	config string
}

// execute runs the command that the arguments name.
func execute(ctx context.Context, args []string) error {
	var opts options
	root := rootCommand(&opts)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if mistakes, ok := errors.AsType[config.Problems](err); ok {
		mistakes = withHint(mistakes, opts.config)
		printProblems(newScreen(os.Stderr), mistakes, nil)
		return &silentError{exitUsage}
	}
	return err
}

// rootCommand is the command line. Whatever cobra finds wrong with it becomes a usage error.
func rootCommand(opts *options) *cobra.Command {
	root := &cobra.Command{
		Use:           "autocertd",
		Short:         "Certificates for internal hosts by ACME and dns-01, on disk and renewed in time.",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArguments,
		RunE:          commandMissing,
		Example: `  autocertd check                        is the configuration right?
  autocertd renew host.corp.example.com  get this certificate now, and see each step
  autocertd status                       which ones expire when, and what went wrong?
  autocertd run                          the daemon, as systemd starts it`,
	}
	root.SetUsageTemplate(usageText)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return wrongUsage(cmd, err.Error()) })
	path := cmp.Or(os.Getenv(configEnv), defaultConfig)
	root.PersistentFlags().StringVarP(&opts.config, "config", "c", path, "the configuration `FILE`; $"+configEnv+" names another default")
	root.PersistentFlags().BoolP("help", "h", false, "what a command does, and its flags")
	root.Flags().Bool("version", false, "which version is this?")
	root.AddCommand(renewCommand(opts), statusCommand(opts), checkCommand(opts), importCommand(opts))
	root.AddCommand(orderCommand(opts))
	root.AddCommand(revokeCommand(opts), forgetCommand(opts), accountCommand(opts))
	root.AddCommand(withoutArguments(runCommand(opts), planCommand(opts), recordsCommand(opts), versionCommand())...)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, command := range root.Commands() {
		if command.Name() == "completion" {
			command.Short = "Let your shell complete commands and names"
			command.RunE = commandMissing
			withoutArguments(append(command.Commands(), command)...)
		}
	}
	return root
}

// asRoot ends the help of commands that read what only root and the daemon may.
const asRoot = "\nRun it as root; it acts as the user of the daemon."

// usageText is shorter than cobra's own, and says which flags belong to the command.
const usageText = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND [flags]{{else}}{{.UseLine}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if .HasAvailableInheritedFlags}}

Flags of all commands:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "What a command does, and its flags",
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return wrongUsage(cmd.Root(), fmt.Sprintf("unknown command %q", strings.Join(args, " ")))
			}
			return topic.Help()
		},
	}
}

// commandMissing is what a command does that only has others below it.
func commandMissing(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(os.Stderr)
	_ = cmd.Help() // nobody can be told that standard error is closed
	return &silentError{exitUsage}
}

// withoutArguments makes commands refuse arguments.
func withoutArguments(commands ...*cobra.Command) []*cobra.Command {
	for _, command := range commands {
		command.Args = noArguments
	}
	return commands
}

// noArguments refuses arguments, in words that fit what somebody meant.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasAvailableSubCommands():
		return wrongUsage(cmd, fmt.Sprintf("%s takes no arguments, but got %q", cmd.Name(), args[0]))
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		text += fmt.Sprintf("; did you mean %s?", strings.Join(similar, " or "))
	}
	return wrongUsage(cmd, text)
}

func wrongUsage(cmd *cobra.Command, text string) error {
	return &usageError{fmt.Errorf("%s\nsee %s --help", text, cmd.CommandPath())}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Which version is this?",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
}

// version says what was built, from the build information that Go puts into the binary.
func version() string {
	text, revision, dirty := "unknown", "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		text = info.Main.Version
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = " " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = "+changes"
			}
		}
	}
	return fmt.Sprintf("autocertd %s%s%s (%s, %s/%s)", text, revision, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// userAgent is how CAs see this program.
func userAgent() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return "autocertd/" + info.Main.Version
	}
	return "autocertd"
}
