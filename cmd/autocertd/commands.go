package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/config"
	"autocertd/internal/term"
)

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
