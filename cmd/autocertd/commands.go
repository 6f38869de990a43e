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
	"github.com/spf13/pflag"

	"autocertd/internal/config"
	"autocertd/internal/suggest"
	"autocertd/internal/term"
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
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if opts.config == "" {
			return wrongUsage(cmd, "--config names no file")
		}
		return nil
	}
	byRoot := os.Geteuid() == 0 // who may be the daemon's user by the time of an error
	err := root.ExecuteContext(ctx)
	if mistakes, ok := errors.AsType[config.Problems](err); ok {
		mistakes = withHint(mistakes, opts.config)
		printProblems(term.On(os.Stderr), mistakes, nil)
		if mistakes.Unreadable() && !byRoot && ordinary(opts.config) {
			printUnreadable()
		}
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
		Example: `  sudo autocertd check                        is the configuration right?
  sudo autocertd renew host.corp.example.com  get this certificate now, and see each step
  sudo autocertd status                       which ones expire when, and what went wrong?`,
	}
	root.SetUsageTemplate(usageText)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(wrongFlag)
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
			command.Long = "Print a script by which a shell completes commands, flags and the names of certificates. make install has put it in\n" +
				"place. Names are completed where the configuration may be read: in root's shell."
			command.RunE = commandMissing
			for _, shell := range command.Commands() {
				if shell.Name() == "powershell" {
					command.RemoveCommand(shell) // nothing else here runs on Windows
				}
			}
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
{{- if not .HasParent}}

Exit status: 0 done, 1 something failed, 2 wrong usage or configuration.{{end}}
`

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "What a command does, and its flags",
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if (err != nil || len(rest) > 0) && topic.HasParent() && topic.HasAvailableSubCommands() {
				return unknownCommand(topic, rest[0])
			}
			if err != nil || len(rest) > 0 {
				return unknownCommand(topic, strings.Join(args, " "))
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
	return unknownCommand(cmd, args[0])
}

// unknownCommand says which commands are called nearly so.
func unknownCommand(cmd *cobra.Command, name string) error {
	if cmd == nil || !cmd.HasAvailableSubCommands() {
		return wrongUsage(cmd.Root(), fmt.Sprintf("unknown command %q", name))
	}
	text := fmt.Sprintf("unknown command %q", name)
	cmd.SuggestionsMinimumDistance = similarCommands
	if similar := cmd.SuggestionsFor(name); name != "" && len(similar) > 0 {
		text += fmt.Sprintf("; did you mean %s?", strings.Join(similar, " or "))
	}
	return wrongUsage(cmd, text)
}

// similarCommands is the number of letters by which a mistyped command may differ from one that is suggested.
const similarCommands = 2

// wrongFlag says what is wrong with a flag, in our words.
func wrongFlag(cmd *cobra.Command, err error) error {
	text := err.Error()
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && strings.HasPrefix(text, "unknown flag") {
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if similar := suggest.DidYouMean(unknown.GetSpecifiedName(), known); similar != "" {
			text += "; " + strings.Replace(similar, "mean ", "mean --", 1)
		}
	}
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok && wrong.GetFlag().Value.Type() == "bool" {
		text = fmt.Sprintf("--%s takes no value, but got %q", wrong.GetFlag().Name, wrong.GetValue())
	}
	return wrongUsage(cmd, text)
}

func wrongUsage(cmd *cobra.Command, text string) error {
	return &usageError{fmt.Errorf("%s\nsee %s --help", text, cmd.CommandPath())}
}

func versionCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "version",
		Short: "Which version is this?",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return term.JSON(os.Stdout, built())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "the same for programs")
	return command
}

// binary describes this program, from the build information that Go puts into it.
type binary struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, when that is known
	Changed  bool   `json:"changed"`            // the source had changes beside the revision
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func built() binary {
	b := binary{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Changed = s.Value == "true"
			}
		}
	}
	return b
}

// version says in a line what was built.
func version() string {
	b, revision, changes := built(), "", ""
	if b.Revision != "" {
		revision = " " + b.Revision[:min(12, len(b.Revision))]
	}
	if b.Changed {
		changes = "+changes"
	}
	return fmt.Sprintf("autocertd %s%s%s (%s, %s/%s)", b.Version, revision, changes, b.Go, b.OS, b.Arch)
}

// userAgent is how CAs see this program.
func userAgent() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return "autocertd/" + info.Main.Version
	}
	return "autocertd"
}
