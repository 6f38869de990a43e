// Command sandbox lets a person try autocertd in a minute: it starts a CA and a DNS server on loopback, writes a
// configuration, runs the real daemon against them, and says what happens and what to try next.
//
//	sandbox -daemon bin/autocertd -dir demo          until Ctrl-C
//	sandbox -daemon bin/autocertd -dir demo -once    ends when all certificates are there, with status 0
//
// Everything it writes is below -dir, and everything it listens on is a free port of 127.0.0.1. The CA forgets all when
// it ends; its certificates are worth nothing elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"autocertd/internal/testbed"
)

// onceTimeout bounds a -once run, on a slow machine too.
const onceTimeout = 3 * time.Minute

func main() {
	binary := flag.String("daemon", "bin/autocertd", "the daemon's binary")
	dir := flag.String("dir", "demo", "where to write the configuration, the certificates and the log")
	once := flag.Bool("once", false, "end when all certificates are there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *dir, *once); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

// sandbox is the little world that the daemon runs in.
type sandbox struct {
	dir    string
	binary string
	dns    *testbed.DNS
	ca     *testbed.CA
}

func run(ctx context.Context, binary, dir string, once bool) (err error) {
	s := &sandbox{dir: dir}
	if s.binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	if err := prepare(dir); err != nil {
		return err
	}
	if s.dns, err = testbed.StartDNS(testbed.DNSConfig{Zones: []string{zone}}); err != nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	defer func() { err = errors.Join(err, s.dns.Close()) }()
	if s.ca, err = testbed.StartCA(testbed.CAConfig{DNS: s.dns.Addr()}); err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	defer func() { err = errors.Join(err, s.ca.Close()) }()
	if err := s.write(); err != nil {
		return err
	}
	s.greet()
	d, err := startDaemon(s.binary, s.path(configFile), s.path(logFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, onceTimeout, fmt.Errorf("not all certificates came within %s; see %s", onceTimeout, s.path(logFile)))
		defer cancel()
	}
	return s.watch(ctx, d, once)
}
