package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"autocertd/internal/cure"
	"autocertd/internal/term"
	"autocertd/issuer"
)

// accountFlags holds the flags of account and of the commands below it.
type accountFlags struct {
	caFlags
	asJSON, yes bool
}

func accountCommand(opts *options) *cobra.Command {
	f := &accountFlags{caFlags: caFlags{options: opts}}
	command := &cobra.Command{
		Use:   "account",
		Short: "The account at a CA: register, show, change its key, deactivate",
		Long: "The account at a CA. Orders register it by themselves when there is none. The CA needs to be named only when there are\n" +
			"several. Without any configuration, name it by --directory.",
		Args: noArguments,
		RunE: commandMissing,
	}
	f.add(command)
	command.PersistentFlags().BoolVar(&f.asJSON, "json", false, "the account, for programs")
	register := f.command("register", "Register the account, or show the one that there is",
		"Register the account and show what the CA returned. One that is there already is shown. After deactivate this is what makes\n"+
			"another one.", f.register)
	register.Flags().StringVar(&f.email, "email", "", "with --directory: the contact, an `ADDRESS`")
	register.Flags().BoolVar(&f.acceptTerms, "accept-terms", false, "with --directory: the CA's terms of service are accepted")
	show := f.command("show", "Show the account as the CA has it",
		"Show the account as the CA has it, the thumbprint of its key, and the CAA record by which the CA issues for this account\n"+
			"alone. Nothing is registered.", func(ctx context.Context, iss *issuer.Issuer) error {
			return f.print(ctx, iss, iss.Account)
		})
	rollover := f.command("rollover", "Give the account a new key",
		"Give the account a new key, at the CA and here. It may be interrupted at any moment and repeated: the daemon goes on with\n"+
			"whichever key the CA accepts, and finishes it.", func(ctx context.Context, iss *issuer.Issuer) error {
			return f.print(ctx, iss, iss.Rollover)
		})
	deactivate := f.command("deactivate", "End the account for good",
		"End the account for good: the CA takes no orders and no revocations from it any more. Nothing registers another one until\n"+
			"account register does.", f.deactivate)
	deactivate.Flags().BoolVarP(&f.yes, "yes", "y", false, "don't ask")
	command.AddCommand(register, show, rollover, deactivate)
	return command
}

// command returns one of the commands below account. do is its work at the CA.
func (f *accountFlags) command(name, short, long string, do func(context.Context, *issuer.Issuer) error) *cobra.Command {
	return &cobra.Command{
		Use:   name + " [CA]",
		Short: short,
		Long:  long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return wrongUsage(cmd, fmt.Sprintf("%s takes one CA, but got %q", name, strings.Join(args, " ")))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.open("account " + name)
			if err != nil {
				return err
			}
			iss, err := p.issuer(cmd.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			defer iss.Close()
			return do(cmd.Context(), iss)
		},
	}
}

func (f *accountFlags) register(ctx context.Context, iss *issuer.Issuer) error {
	return f.print(ctx, iss, func(ctx context.Context) (issuer.Account, error) {
		account, made, err := iss.Register(ctx)
		switch {
		case err != nil:
		case made:
			fmt.Fprintln(os.Stderr, "registered")
		case account.Status == "valid":
			fmt.Fprintln(os.Stderr, "registered already; nothing was changed")
		default:
			err = cure.New(fmt.Sprintf("the account %s is %s", account.URL, account.Status), "to give it up, so that another can be registered: autocertd account deactivate "+iss.Argument())
		}
		return account, err
	})
}

func (f *accountFlags) deactivate(ctx context.Context, iss *issuer.Issuer) error {
	account, err := iss.Account(ctx)
	if err != nil {
		return err
	}
	if err := confirm(fmt.Sprintf("This ends the account %s at CA %s for good.", account.URL, iss.Name()), f.yes); err != nil {
		return err
	}
	if err := iss.Deactivate(ctx); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "deactivated; CA %s issues nothing until you register another account: autocertd account register %s\n", iss.Name(), iss.Argument())
	return nil
}

// accountReport is the output of account --json.
type accountReport struct {
	CA        string `json:"ca"`
	Directory string `json:"directory"`
	issuer.Account
}

// print shows the account that get returns.
func (f *accountFlags) print(ctx context.Context, iss *issuer.Issuer, get func(context.Context) (issuer.Account, error)) error {
	account, err := get(ctx)
	if err != nil {
		return err
	}
	if f.asJSON {
		return term.JSON(os.Stdout, accountReport{iss.Name(), iss.DirectoryURL(), account})
	}
	colour := term.Green
	if account.Status != "valid" {
		colour = term.Red
	}
	rows := [][2]term.Cell{
		{{Text: "CA"}, {Text: fmt.Sprintf("%s (%s)", iss.Name(), iss.DirectoryURL())}},
		{{Text: "account"}, {Text: account.URL}},
		{{Text: "status"}, {Text: account.Status, Colour: colour}},
	}
	add := func(label string, values ...string) {
		for _, value := range values {
			if value != "" {
				rows = append(rows, [2]term.Cell{{Text: label}, {Text: value}})
			}
		}
	}
	add("contact", account.Contact...)
	add("orders", account.Orders)
	add("thumbprint", account.Thumbprint)
	add("CAA", account.CAA...)
	_, err = term.Pairs(rows).Print(term.On(os.Stdout))
	return err
}
