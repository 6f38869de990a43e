package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
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
	"autocertd/internal/durable"
	"autocertd/internal/state"
	"autocertd/issuer"
)

// revokeFlags are those of revoke.
type revokeFlags struct {
	caFlags
	cert, key  string // files
	ca, reason string
	yes        bool
}

func revokeCommand(opts *options) *cobra.Command {
	f := &revokeFlags{caFlags: caFlags{options: opts}}
	command := &cobra.Command{
		Use:   "revoke NAME | --cert FILE",
		Short: "Revoke a certificate, by its name or by its file",
		Long: "Have the CA revoke a certificate: the one that was issued last for NAME, or the one in a file, whoever got it. The request is\n" +
			"signed with the account's key, or with the certificate's own by --key, for which no account is needed. After keyCompromise\n" +
			"the key is never used again, and every certificate that has it is replaced at once. A revocation by --key is one, whatever\n" +
			"the reason: CAs take it as a proof that others have the key. A revoked certificate that is configured is replaced.",
		Example: `  sudo autocertd revoke www.corp.example.com --reason superseded
  sudo autocertd revoke www.corp.example.com --reason keyCompromise
  sudo autocertd revoke --cert found.pem --key found.key --reason keyCompromise`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1, len(args) == 1 == (f.cert != ""):
				return wrongUsage(cmd, "revoke takes the name of one certificate, or --cert FILE")
			case f.key != "" && f.cert == "":
				return wrongUsage(cmd, "--key goes with --cert")
			}
			return nil
		},
		ValidArgsFunction: completeNames(opts),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.revoke(cmd.Context(), strings.Join(args, ""))
		},
	}
	f.add(command)
	flags := command.Flags()
	flags.StringVar(&f.cert, "cert", "", "the certificate in this `FILE`, of a chain the first")
	flags.StringVar(&f.key, "key", "", "with --cert: sign with the certificate's own key, in this `FILE`")
	flags.StringVar(&f.ca, "ca", "", "with --cert: the CA, by its `NAME` in the configuration")
	flags.StringVar(&f.reason, "reason", "unspecified", "why, a `REASON` by name or number: unspecified, keyCompromise, superseded, …")
	_ = command.RegisterFlagCompletionFunc("reason", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return issuer.PublicReasons(), cobra.ShellCompDirectiveNoFileComp
	}) // the flag is there
	flags.BoolVarP(&f.yes, "yes", "y", false, "don't ask")
	return command
}

// revocation is a certificate to be revoked, and what for.
type revocation struct {
	*session
	name   string // "" when it came from a file
	cert   *x509.Certificate
	key    crypto.Signer // its own; nil when that isn't there
	issuer *issuer.Issuer
	reason issuer.Reason
}

func (f *revokeFlags) revoke(ctx context.Context, name string) error {
	r := &revocation{name: name}
	var err error
	if r.reason, err = issuer.ParseReason(f.reason); err != nil {
		return &usageError{err}
	}
	if f.cert != "" { // while we may still read it
		if r.cert, r.key, err = readPair(f.cert, f.key); err != nil {
			return &usageError{err}
		}
	}
	if r.session, err = f.open("revoke"); err != nil {
		return err
	}
	ca := f.ca
	if name != "" {
		if ca, err = r.find(ctx); err != nil {
			return err
		}
	}
	if r.issuer, err = r.session.issuer(ctx, ca); err != nil {
		return err
	}
	defer r.issuer.Close()
	question := fmt.Sprintf("This revokes %s, at CA %s, reason %s.", r.what(), r.issuer.Name(), r.reason)
	if r.signsItself() && r.reason != issuer.KeyCompromise {
		question += " " + signsItself
	}
	if err := confirm(question, f.yes); err != nil {
		return err
	}
	return r.run(ctx)
}

// unreadable says of a flag's file why it can't be read.
func unreadable(flag, file string, err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("%s: %s can't be read: %w", flag, file, err)
}

// maxPEM is the most bytes that are read of a certificate or a key.
const maxPEM = 1 << 20

// readPair reads a certificate, and its key when a file is named. Errors never hold the key.
func readPair(certFile, keyFile string) (*x509.Certificate, crypto.Signer, error) {
	text, err := durable.Read(certFile, maxPEM)
	if err != nil {
		return nil, nil, unreadable("--cert", certFile, err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, fmt.Errorf("%s holds no certificate in PEM", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certFile, err)
	}
	if keyFile == "" {
		return cert, nil, nil
	}
	key, err := durable.Read(keyFile, maxPEM)
	if err != nil {
		return nil, nil, unreadable("--key", keyFile, err)
	}
	pair, err := tls.X509KeyPair(text, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s isn't the key of the certificate in %s: %w", keyFile, certFile, err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("the key in %s can't sign", keyFile)
	}
	return cert, signer, nil
}

// find finds what was issued for the name, and the CA that did.
func (r *revocation) find(ctx context.Context) (ca string, err error) {
	bundle, leaf, err := state.LoadBundle(ctx, r.store, r.name)
	if _, damaged := errors.AsType[*state.DamagedError](err); damaged {
		file := quoteWord(filepath.Join(r.stateDir, "live", r.name, "cert.pem"))
		return "", cure.With(err, fmt.Sprintf("to revoke what its file holds: autocertd revoke --cert %s --reason %s", file, r.reason))
	}
	if err != nil {
		return "", err
	}
	if bundle == nil {
		return "", wrong(fmt.Sprintf("nothing was issued for %q", r.name), "autocertd status lists what was")
	}
	r.cert = leaf
	if pair, err := tls.X509KeyPair([]byte(bundle.Leaf), []byte(bundle.Key)); err == nil {
		r.key, _ = pair.PrivateKey.(crypto.Signer)
	}
	if r.settings == nil {
		return bundle.CA, nil
	}
	// It may be called otherwise by now.
	for _, c := range r.cas {
		if c.Directory == bundle.Directory && (ca == "" || c.Name == bundle.CA) {
			ca = c.Name
		}
	}
	if ca == "" {
		return "", cure.New("the CA that issued it isn't in the configuration any more", fmt.Sprintf("name it: autocertd revoke %s --directory %s", r.name, bundle.Directory))
	}
	return ca, nil
}

// what says which certificate it is.
func (r *revocation) what() string {
	text := fmt.Sprintf("the certificate for %s with serial number %s", strings.Join(r.cert.DNSNames, ", "), hex.EncodeToString(r.cert.SerialNumber.Bytes()))
	if r.name != "" && !slices.Equal(r.cert.DNSNames, []string{r.name}) {
		text = r.name + ", " + text
	}
	return text
}

// signsItself explains a further effect of a revocation that the certificate's own key signs.
const signsItself = "Signed by the certificate's own key, it tells the CA that others may have the key: the key is never used again."

// signsItself reports whether the certificate's own key signs the request. Let's Encrypt takes each such revocation for a
// compromise of the key, whatever the reason, and issues nothing for it any more.
func (r *revocation) signsItself() bool {
	return r.key != nil && (r.name == "" || r.reason == issuer.KeyCompromise)
}

// run marks the key before the CA is told, so that a crash in between leaves nothing that uses it for long.
func (r *revocation) run(ctx context.Context) error {
	var users []string
	var err error
	compromised := r.reason == issuer.KeyCompromise || r.signsItself()
	if compromised {
		if users, err = state.MarkCompromised(ctx, r.store, r.cert); err != nil {
			return err
		}
	}
	err = r.ask(ctx)
	if r.key != nil && !compromised && issuer.NotEntitled(err) { // a name was given, and the account may not
		compromised = true
		fmt.Fprintln(os.Stderr, "the account may not revoke it, so that its own key does.", signsItself)
		if users, err = state.MarkCompromised(ctx, r.store, r.cert); err != nil {
			return err
		}
		err = r.issuer.Revoke(ctx, r.cert, r.key, r.reason)
	}
	done, reason := "revoked", r.reason.String()
	if errors.Is(err, issuer.ErrAlreadyRevoked) {
		done, reason, err = "revoked before:", "", nil
	}
	if err == nil {
		fmt.Println(done, r.what())
		commandLogger(config.Log{}, r.command, true).Info("certificate revoked", "serial", hex.EncodeToString(r.cert.SerialNumber.Bytes()),
			"hostnames", strings.Join(r.cert.DNSNames, ","), "ca", r.issuer.Name(), "reason", r.reason.String())
		err = r.note(ctx, reason)
	}
	if !compromised {
		return err
	}
	return errors.Join(err, r.replace(ctx, users))
}

// ask has the CA revoke it. A compromised key is shown to be that by its own signature, so that the CA takes no order for
// it any more.
func (r *revocation) ask(ctx context.Context) error {
	if r.signsItself() {
		return r.issuer.Revoke(ctx, r.cert, r.key, r.reason)
	}
	return r.issuer.Revoke(ctx, r.cert, nil, r.reason)
}

// note remembers the revocation, for status and for the daemon, and says what comes next.
func (r *revocation) note(ctx context.Context, reason string) error {
	names, err := state.MarkRevoked(ctx, r.store, r.cert, reason)
	if err != nil || len(names) == 0 {
		return err
	}
	if used := r.configured(names); len(used) > 0 && r.reason != issuer.KeyCompromise && !r.signsItself() {
		fmt.Fprintf(os.Stderr, "its files are still in use. The daemon replaces it at its next tick; to replace it now: autocertd renew %s. "+
			"To have none any more, remove it from the configuration\n", used[0].Name)
	}
	return nil
}

// configured returns those of the names that the configuration has.
func (r *revocation) configured(names []string) (certs []config.Certificate) {
	if r.settings == nil {
		return nil
	}
	for _, c := range r.settings.Certificates {
		if slices.Contains(names, c.Name) {
			certs = append(certs, c)
		}
	}
	return certs
}

// replace gets other certificates for those whose key is compromised, as renew does.
func (r *revocation) replace(ctx context.Context, users []string) error {
	certs := r.configured(users)
	if len(certs) == 0 {
		if len(users) > 0 {
			fmt.Fprintf(os.Stderr, "the same key is used for %s; the daemon replaces what is in its configuration, at its next look: systemctl reload autocertd\n", strings.Join(users, ", "))
		}
		return nil
	}
	show := showPass(len(certs))
	logger := commandLogger(r.settings.Log, r.command, show.Screen.Terminal)
	p, err := r.program(programConfig{logger: logger, wait: true, progress: show.step})
	if err != nil {
		return err
	}
	failed, err := p.pass(ctx, certs, p.manager.Retry, show)
	err = errors.Join(err, p.close())
	show.end(failed)
	if err == nil && failed > 0 {
		err = cure.New(fmt.Sprintf("%d of %d certificates with the compromised key could not be replaced yet", failed, len(certs)), "the daemon goes on trying: systemctl reload autocertd")
	}
	return err
}
