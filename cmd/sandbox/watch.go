package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// firstCertificates are what the configuration asks for at the start, by their folders in live/.
var firstCertificates = [...]string{"bsys.corp.example.com", "rpmb.corp.example.com", "_.apps.corp.example.com", "site"}

// lookInterval is how often the sandbox looks for new files.
const lookInterval = 100 * time.Millisecond

func (s *sandbox) greet() {
	fmt.Printf(`A CA (%s)
and a DNS server for %s (%s) run on this machine, for this demonstration only.
autocertd starts now. It reads %s and must get %d certificates: for each it orders,
publishes TXT records by signed updates, waits until they can be seen, has them validated,
fetches the certificate, writes the files and removes the records.

`, s.ca.Directory(), zone, s.dns.Addr(), s.path(configFile), len(firstCertificates))
}

func (s *sandbox) goOn() {
	state := relative(s.path(stateDir))
	fmt.Printf("\nEverything is there: %d DNS updates, %d TXT records left in the zone. Now try:\n\n", s.dns.Updates(), len(s.dns.All()))
	for _, line := range []string{
		fmt.Sprintf("add a hostname below %s to %s and save: it has its certificate in a second", zone, s.path(configFile)),
		fmt.Sprintf("%s status -c %s", relative(s.binary), s.path(configFile)),
		fmt.Sprintf("openssl verify -CAfile %s -untrusted %s/live/site/chain.pem %[2]s/live/site/cert.pem", s.path(rootFile), state),
		"break the configuration, save, and look at status again",
		fmt.Sprintf("less %s: what the daemon says", s.path(logFile)),
		"Ctrl-C ends everything",
	} {
		fmt.Println("  " + line)
	}
	fmt.Println()
}

// watch tells of each certificate that appears, until the context ends; with once, until all of the first are there.
func (s *sandbox) watch(ctx context.Context, d *daemon, once bool) error {
	roots, err := s.roots()
	if err != nil {
		return err
	}
	begin := time.Now()
	seen := map[string]string{} // name to serial number
	complete := false
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-d.ended:
			d.ended <- nil
			return fmt.Errorf("the daemon ended (%v); see %s", err, s.path(logFile))
		case <-ctx.Done():
			if once {
				return context.Cause(ctx)
			}
			fmt.Println("\nEnding.")
			return nil
		case <-ticker.C:
		}
		if err := s.look(roots, seen, begin); err != nil {
			return err
		}
		if !complete && !slices.ContainsFunc(firstCertificates[:], func(name string) bool { return seen[name] == "" }) && len(s.dns.All()) == 0 {
			if complete = true; once {
				fmt.Printf("\nAll %d certificates chain to %s: %d DNS updates, no TXT record left.\n", len(firstCertificates), s.path(rootFile), s.dns.Updates())
				return nil
			}
			s.goOn()
		}
	}
}

func (s *sandbox) roots() (*x509.CertPool, error) {
	text, err := os.ReadFile(s.path(rootFile))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("the CA's root can't be read")
	}
	return pool, nil
}

// look tells of certificates that are new since the last look. One that doesn't chain to the root is an error.
func (s *sandbox) look(roots *x509.CertPool, seen map[string]string, begin time.Time) error {
	folders, err := filepath.Glob(filepath.Join(s.path(stateDir), "live", "*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if strings.HasPrefix(filepath.Base(folder), ".") {
			continue // one that is being built
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "fullchain.pem"), filepath.Join(folder, "privkey.pem"))
		if errors.Is(err, os.ErrNotExist) {
			continue // on its way
		}
		if err != nil {
			continue // somebody tries what the daemon does about it: "renew" puts it right, and the daemon within an hour
		}
		name, serial := filepath.Base(folder), pair.Leaf.SerialNumber.Text(16)
		if seen[name] == serial {
			continue
		}
		if err := verify(roots, pair); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
		word := "new"
		if seen[name] != "" {
			word = "renewed"
		}
		seen[name] = serial
		fmt.Printf("  after %5.2f s  %-8s %s  (%s, until %s)\n", time.Since(begin).Seconds(), word, relative(folder),
			strings.Join(pair.Leaf.DNSNames, ", "), pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// verify checks that a certificate chains to the root by the chain that was delivered with it.
func verify(roots *x509.CertPool, pair tls.Certificate) error {
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(cert)
	}
	_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}

// relative is a path as a person in this folder would type it.
func relative(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
			return rel
		}
	}
	return path
}
