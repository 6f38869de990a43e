package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
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
	root := &cobra.Command{
		Use:           "autocertd",
		Short:         "certificates for internal hosts, by ACME and dns-01, on disk and renewed in time",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args:          cobra.NoArgs,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	config := os.Getenv(configEnv)
	if config == "" {
		config = defaultConfig
	}
	root.PersistentFlags().StringVarP(&opts.config, "config", "c", config, "the configuration file; its default can be set in $"+configEnv)
	root.AddCommand(runCommand(&opts), renewCommand(&opts), statusCommand(&opts), checkCommand(&opts), versionCommand())
	for _, command := range root.Commands() {
		if command.Args != nil {
			command.Args = wrongUsage(command.Args)
		}
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		_ = cmd.Help()
		return &silentError{exitUsage}
	}
	root.Args = wrongUsage(root.Args)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// wrongUsage makes what cobra finds wrong with arguments a usage error.
func wrongUsage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{fmt.Errorf("%w; see autocertd --help", err)}
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Which version is this?",
		Args:  cobra.NoArgs,
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
