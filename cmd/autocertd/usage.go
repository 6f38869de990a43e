package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"autocertd/internal/config"
	"autocertd/internal/cure"
	"autocertd/internal/suggest"
	"autocertd/internal/term"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is wrong usage or a wrong configuration: nothing was tried.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

// silentError ends the program with a status. The error has been printed already.
type silentError struct{ status int }

func (e *silentError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

const (
	defaultConfig = "/etc/autocertd/config.toml"
	configEnv     = "AUTOCERTD_CONFIG"
)

// options are the flags of all commands.
type options struct {
	config string
}

// asRoot ends the help of commands that read what only root and the daemon may.
const asRoot = "\nRun it as root; it acts as the user of the daemon."

// commandMissing runs a command that only has others below it: it prints their list.
func commandMissing(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(os.Stderr)
	_ = cmd.Help() // a closed standard error can't be reported
	return &silentError{exitUsage}
}

// withoutArguments makes commands refuse arguments.
func withoutArguments(commands ...*cobra.Command) []*cobra.Command {
	for _, command := range commands {
		command.Args = noArguments
	}
	return commands
}

// noArguments refuses arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasAvailableSubCommands():
		return wrongUsage(cmd, fmt.Sprintf("%s takes no arguments, but got %q", cmd.Name(), args[0]))
	}
	return unknownCommand(cmd, args[0])
}

// unknownCommand refuses a command, and suggests those with similar names.
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

// wrongFlag rewrites the flag library's errors.
func wrongFlag(cmd *cobra.Command, err error) error {
	text := err.Error()
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
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

// wrong returns a usage error with its cure.
func wrong(problem, remedy string) error { return &usageError{cure.New(problem, remedy)} }

func wrongUsage(cmd *cobra.Command, text string) error {
	return &usageError{fmt.Errorf("%s\nsee %s --help", text, cmd.CommandPath())}
}

// confirm asks a person before an action that can't be undone. Where there is no terminal the flag --yes must be there.
func confirm(question string, yes bool) error {
	if yes {
		return nil
	}
	if !term.CanAsk() {
		return wrong(question+" Nobody can be asked here", "to go on, add --yes")
	}
	fmt.Fprintf(os.Stderr, "%s Type yes to go on: ", question)
	var answer string
	_, _ = fmt.Scanln(&answer) // no answer is none
	if !strings.EqualFold(answer, "yes") {
		fmt.Fprintln(os.Stderr, "nothing was changed")
		return &silentError{exitFailed}
	}
	return nil
}

// runAsRoot returns the cure for missing permissions: the command line that was given, for root.
func runAsRoot() string {
	words := []string{"run it as root: sudo", "autocertd"}
	for _, word := range os.Args[1:] {
		words = append(words, quoteWord(word))
	}
	return strings.Join(words, " ")
}

// quoteWord makes one word for a shell.
func quoteWord(text string) string {
	plain := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+./:,@%[]" // no shell does anything with these
	if text == "" || strings.Trim(text, plain) != "" {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}

// printProblems writes a line for each mistake and warning.
func printProblems(out term.Screen, mistakes, warnings config.Problems) {
	write := func(list config.Problems, word string, c term.Colour) {
		for _, p := range list {
			out.Say(c, word, term.WithHint(p.Error(), p.Hint))
		}
	}
	write(mistakes, "mistake:", term.Red)
	write(warnings, "warning:", term.Yellow)
}

// withHint adds a hint when the configuration file is missing: it may be elsewhere.
func withHint(mistakes config.Problems, path string) config.Problems {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return mistakes
	}
	mistakes = slices.Clone(mistakes)
	for i := range mistakes {
		if mistakes[i].File == path && mistakes[i].Hint == "" {
			mistakes[i].Hint = "name the file by --config or $" + configEnv + ", or write it"
		}
	}
	return mistakes
}

// printUnreadable is printed for a user who may not read all files, which is no mistake of the configuration.
func printUnreadable() {
	fmt.Fprintf(os.Stderr, "you may not read all of the configuration, so nothing is known of how the daemon finds it; %s\n", runAsRoot())
}

func printWarnings(warnings []string) {
	for _, text := range warnings {
		term.On(os.Stderr).Warn(text)
	}
}
