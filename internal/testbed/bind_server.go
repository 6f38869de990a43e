//go:build linux

package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// errPortTaken means that somebody else took a port between our choice and named's bind.
var errPortTaken = errors.New("port taken")

// namedServer is one process of a DNS server, named or another, and its place.
type namedServer struct {
	Dir       string // configuration, zones, log
	Port      int    // DNS, UDP and TCP
	StatsPort int    // statistics, HTTP
	path      string // the program
	args      []string
	zones     []BINDZone
	log       io.Writer

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
}

func newNamedServer(path, dir string, cfg BINDConfig) (*namedServer, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s := &namedServer{Dir: dir, path: path, zones: cfg.Zones, log: cfg.Log}
	s.args = []string{"-g", "-n", "1", "-c", filepath.Join(dir, "named.conf")}
	for _, port := range []*int{&s.Port, &s.StatsPort} {
		var err error
		if *port, err = freePort(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// freePort finds a port that is free for UDP and TCP. It looks below the range from which systems give out ports by
// themselves, so that only another freePort can take it before named does.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 10000 + rand.IntN(22000)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		var udp net.PacketConn
		if udp, err = net.ListenPacket("udp", addr); err != nil {
			continue
		}
		var tcp net.Listener
		if tcp, err = net.Listen("tcp", addr); err == nil {
			return port, errors.Join(tcp.Close(), udp.Close())
		}
		udp.Close()
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

func (s *namedServer) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

func (s *namedServer) logFile() string { return filepath.Join(s.Dir, "named.log") }

// start runs named and returns when it answers for every zone; when it does not, it is dead again.
func (s *namedServer) start(ctx context.Context) error {
	if s.running() {
		return fmt.Errorf("start %s on %s: it runs already", filepath.Base(s.path), s.addr())
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var out io.Writer = log
	if s.log != nil {
		out = io.MultiWriter(log, s.log)
	}
	cmd := exec.Command(s.path, s.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		log.Close()
		return err
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		log.Close()
		close(done)
	}()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()

	if err := s.ready(ctx); err != nil {
		s.kill()
		return fmt.Errorf("%s on %s: %w; its log ends:\n%s", filepath.Base(s.path), s.addr(), err, s.logEnd())
	}
	return nil
}

// ready asks for every zone until there is an authoritative answer by UDP and TCP, named dies, or time is up.
func (s *namedServer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.answers(ctx)
		if hopeless := s.hopeless(); hopeless != nil {
			return hopeless
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.done:
			return errors.New("it ended")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (s *namedServer) answers(ctx context.Context) error {
	for _, network := range []string{"tcp", "udp"} {
		client := dns.Client{Net: network, Timeout: time.Second}
		if len(s.zones) == 0 { // any answer will do
			if _, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT), s.addr()); err != nil {
				return fmt.Errorf("ask by %s: %w", network, err)
			}
		}
		for _, z := range s.zones {
			query := new(dns.Msg).SetQuestion(dns.Fqdn(z.Name), dns.TypeSOA)
			query.RecursionDesired = false
			resp, _, err := client.ExchangeContext(ctx, query, s.addr())
			if err != nil {
				return fmt.Errorf("ask for zone %s by %s: %w", z.Name, network, err)
			}
			if resp.Rcode != dns.RcodeSuccess || !resp.Authoritative {
				return fmt.Errorf("ask for zone %s by %s: %s", z.Name, network, dns.RcodeToString[resp.Rcode])
			}
		}
	}
	return nil
}

// hopeless looks in the log, since named goes on without a port that it could not have and a zone that it could not read.
func (s *namedServer) hopeless() error {
	log, err := os.ReadFile(s.logFile())
	switch { // in the words of named, Knot, and PowerDNS
	case bytes.Contains(log, []byte("address in use")), bytes.Contains(log, []byte("ddress already in use")):
		return errPortTaken
	case bytes.Contains(log, []byte("not loaded due to errors")):
		return errors.New("a zone is wrong")
	}
	return err
}

// logEnd is as much of the log as an error message can carry.
func (s *namedServer) logEnd() []byte {
	log, _ := os.ReadFile(s.logFile())
	return log[max(0, len(log)-3000):]
}

func (s *namedServer) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// stop freezes the process and returns when it stands still.
func (s *namedServer) stop() error {
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	// WNOWAIT leaves the news in place, and without WEXITED the end of the process is left to cmd.Wait.
	for {
		err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (s *namedServer) resume() error { return s.signal(syscall.SIGCONT) }

// kill ends the process, also a stopped one, and waits for it. What it acknowledged is on disk.
func (s *namedServer) kill() error {
	if !s.running() {
		return nil
	}
	if err := s.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.done
	return nil
}

func (s *namedServer) signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return fmt.Errorf("signal %s on %s: %w", filepath.Base(s.path), s.addr(), os.ErrProcessDone)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s on %s: %w", filepath.Base(s.path), s.addr(), err)
	}
	return nil
}
