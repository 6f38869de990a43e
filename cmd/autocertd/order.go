package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// orderFlags are those of the steps.
type orderFlags struct {
	caFlags
	ca          string
	nameservers []string
	verbose     bool

	hostnames []string // of new
	keyType   string
	profile   string
	force     bool

	format    string // of records
	wait      bool   // of check
	unchecked bool   // of validate
	dir       string // of finish
}

func orderCommand(opts *options) *cobra.Command {
	f := &orderFlags{caFlags: caFlags{options: opts}}
	command := &cobra.Command{
		Use:   "order",
		Short: "One certificate, step by step, when a person edits the zone",
		Long: "One certificate, step by step: each command is a process of its own, nothing is lost between them, and days may go by as\n" +
			"far as the CA allows it. A step that is already done says so and changes nothing. They work beside the daemon, and\n" +
			"without any configuration: name the CA by --directory, at every step.",
		Example: `  autocertd order new www.corp.example.com       make the order
  autocertd order records www.corp.example.com   the TXT record, as a line for the zone file
  autocertd order check www.corp.example.com     do all servers have it?
  autocertd order validate www.corp.example.com  let the CA look
  autocertd order finish www.corp.example.com    get the certificate`,
		Args: noArguments,
		RunE: commandMissing,
	}
	f.add(command)
	flags := command.PersistentFlags()
	flags.StringVar(&f.ca, "ca", "", "the CA, by its `NAME` in the configuration")
	flags.StringVar(&f.email, "email", "", "with --directory: the contact of a new account, an `ADDRESS`")
	flags.BoolVar(&f.acceptTerms, "accept-terms", false, "with --directory: the CA's terms of service are accepted")
	flags.StringArrayVar(&f.nameservers, "nameserver", nil, "ask this `ADDRESS` instead of the zone's own servers; may be repeated")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show each request to the CA and its reply, without secrets")
	command.AddCommand(f.newCommand(), f.recordsCommand(), f.checkCommand(), f.validateCommand(), f.finishCommand())
	for _, step := range command.Commands() {
		step.ValidArgsFunction = completeNames(opts)
	}
	return command
}

// step makes the command of a step from what it does with the one name that it takes.
func (f *orderFlags) step(use, short, long string, do func(s *orderStep, ctx context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 0 && len(f.hostnames) == 0 {
				return wrongUsage(cmd, fmt.Sprintf("order %s takes the name of one certificate", cmd.Name()))
			}
			s, err := f.begin(cmd.Context(), cmd.Name(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			defer s.end()
			return do(s, cmd.Context())
		},
	}
}

func (f *orderFlags) newCommand() *cobra.Command {
	command := f.step("new NAME", "Make the order and show what the CA offers",
		"Make the order for a certificate of the configuration, for a hostname, or for those given by -d, and show it. An account\n"+
			"is registered when there is none.", (*orderStep).new)
	command.Flags().StringArrayVarP(&f.hostnames, "domain", "d", nil, "a `HOST`name, instead of those of the configuration; may be repeated")
	command.Flags().StringVar(&f.keyType, "key-type", "", "with -d: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	command.Flags().StringVar(&f.profile, "profile", "", "with -d: the CA's profile")
	command.Flags().BoolVar(&f.force, "force", false, "start anew, whatever is open or there already")
	return command
}

func (f *orderFlags) recordsCommand() *cobra.Command {
	command := f.step("records NAME", "Show the TXT records to add to the zone",
		"Show the TXT records to add to the zone: as lines of a zone file, as a script for nsupdate, or as JSON.", (*orderStep).records)
	command.Flags().StringVar(&f.format, "format", formatZone, "zone, nsupdate or json")
	return command
}

func (f *orderFlags) checkCommand() *cobra.Command {
	command := f.step("check NAME", "Ask every authoritative server for the records",
		"Ask every authoritative server of the zone for the records, as dig would. The exit status is 0 when all have them.", (*orderStep).check)
	command.Flags().BoolVar(&f.wait, "wait", false, "until all have them")
	return command
}

func (f *orderFlags) validateCommand() *cobra.Command {
	command := f.step("validate NAME", "Let the CA look for the records, and show what it found",
		"Ask the CA to look for the records, wait until it has, and show each authorization. The servers are asked first, since a\n"+
			"validation that fails ends the order: it needs new records then.", (*orderStep).validate)
	command.Flags().BoolVar(&f.unchecked, "unchecked", false, "without asking the servers first")
	return command
}

func (f *orderFlags) finishCommand() *cobra.Command {
	command := f.step("finish NAME", "Get the certificate and write its files",
		"Finalize the order, download the certificate, keep it in the state directory as the daemon does, and write NAME.crt,\n"+
			"NAME.key and NAME.fullchain.crt.", (*orderStep).finish)
	command.Flags().StringVar(&f.dir, "dir", ".", "write the files into this `DIR`")
	return command
}

// next is the command that follows, to be pasted.
func (s *orderStep) next(step string, more ...string) string {
	f := s.flags
	words := append([]string{"autocertd", "order", step, s.cert.Name}, more...)
	add := func(flag, value string) {
		if value != "" {
			words = append(words, flag, quoteWord(value))
		}
	}
	if f.directory == "" && f.config != cmp.Or(os.Getenv(configEnv), defaultConfig) {
		add("--config", f.config)
	}
	add("--ca", f.ca)
	add("--directory", f.directory)
	for _, file := range f.roots {
		add("--roots", file)
	}
	for _, host := range f.hosts {
		add("--ca-host", host)
	}
	add("--state-dir", f.stateDir)
	for _, server := range f.nameservers {
		add("--nameserver", server)
	}
	return strings.Join(words, " ")
}

// quoteWord makes one word for a shell.
func quoteWord(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@[],=+", r)
	}) {
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}
