// Command autocertd gets certificates for internal hosts by ACME with the dns-01 challenge, writes the files that
// services want, and renews them in time.
//
//	autocertd run              the daemon
//	autocertd renew [NAME…]    one pass now; safe beside the daemon
//	autocertd status [NAME…]   every certificate: expiry, next renewal, last error
//	autocertd plan             what is due when, against the CA's limits
//	autocertd check            is the configuration right?  --live: would issuing work?
//	                           --policy, --delegation ZONE: lines for the DNS server
//	autocertd records          TXT records that we published: list, clean
//	autocertd order            one certificate, step by step, when a person edits the zone:
//	                           new, records, check, validate, finish
//	autocertd account          the account at a CA: register, show, rollover, deactivate
//	autocertd revoke           revoke a certificate
//	autocertd forget           remove certificates that are no longer configured
//	autocertd import           accounts and certificates of certbot, lego, acme.sh or dehydrated
//	autocertd version          which version is this?
//
// It reads /etc/autocertd/config.toml and conf.d/*.toml beside it, and keeps accounts, keys and certificates in
// /var/lib/autocertd. Logs go to standard error, results to standard output. It listens on no port.
//
// Exit status: 0 done, 1 something failed, 2 wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"autocertd/internal/term"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is the program; tests call it in a process of their own.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := execute(ctx, args)
	if err == nil {
		return exitDone
	}
	var usage *usageError
	var silent *silentError
	if errors.As(err, &silent) { // everything was said
		return silent.status
	}
	fmt.Fprintln(os.Stderr, "autocertd:", term.Text(err))
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}
