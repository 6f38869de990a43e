//go:build linux

package testbed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// StepCAConfig says how step-ca behaves. Dir and DNS are required.
type StepCAConfig struct {
	Dir      string        // each start makes a new folder in it
	DNS      string        // host:port that validations ask
	Lifetime time.Duration // of certificates, from their order on; default: 24 hours
	Log      io.Writer     // gets a copy of what it logs
}

// StepCA is smallstep's step-ca, a process of its own behind HTTPS. Unlike Pebble it keeps what it knows on disk, leaves
// the challenge pending when a validation fails, dates certificates back by a minute, fixes their end when it takes the
// order, and offers no renewal information.
type StepCA struct {
	cfg     StepCAConfig
	program string
	dir     string
	addr    string
	rootPEM []byte

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
}

// StartStepCA starts step-ca and returns when it serves its directory; ctx limits the start only. The program is built
// first where Go's build cache doesn't have it. It runs as the caller, on a port of 127.0.0.1, and dies with the caller.
func StartStepCA(ctx context.Context, cfg StepCAConfig) (*StepCA, error) {
	program, err := buildStepCA(ctx)
	if err != nil {
		return nil, err
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = 24 * time.Hour
	}
	if cfg.Log != nil {
		cfg.Log = &lockedWriter{w: cfg.Log}
	}
	c, err := onFreePorts(func() (*StepCA, error) { return startStepCA(ctx, program, cfg) })
	if err != nil {
		return nil, fmt.Errorf("start step-ca in %s: %w", cfg.Dir, err)
	}
	return c, nil
}

// buildStepCA returns the path of the program in Go's build cache. A build from nothing takes minutes. Without cgo it
// needs no library of the system.
func buildStepCA(ctx context.Context) (string, error) {
	here, err := goOutput(exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "autocertd/internal/testbed"))
	if err != nil {
		return "", fmt.Errorf("build step-ca: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "tool", "-n", "step-ca")
	build.Dir = filepath.Join(here, "stepca")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	program, err := goOutput(build)
	if err != nil {
		return "", fmt.Errorf("build step-ca in %s: %w", build.Dir, err)
	}
	return program, nil
}

func goOutput(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func startStepCA(ctx context.Context, program string, cfg StepCAConfig) (*StepCA, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "stepca-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c := &StepCA{cfg: cfg, program: program, dir: dir, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if c.rootPEM, err = writeStepCAFiles(dir, c.addr, cfg.Lifetime); err != nil {
		return nil, err
	}
	return c, c.Restart(ctx)
}

// Directory is the URL that ACME clients start from.
func (c *StepCA) Directory() string { return "https://" + c.addr + "/acme/acme/directory" }

// RootPEM is the root of what it issues, and of the certificate that it shows itself.
func (c *StepCA) RootPEM() []byte { return c.rootPEM }

// Restart starts step-ca again after Kill, with its old port and data, and returns when it serves its directory.
func (c *StepCA) Restart(ctx context.Context) error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var out io.Writer = log
	if c.cfg.Log != nil {
		out = io.MultiWriter(log, c.cfg.Log)
	}
	cmd := exec.Command(c.program, filepath.Join(c.dir, "ca.json"), "--resolver", c.cfg.DNS)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, out, out
	cmd.Env = append(os.Environ(), "STEPPATH="+c.dir) // not the user's own
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
	c.mu.Lock()
	c.cmd, c.done = cmd, done
	c.mu.Unlock()

	if err := c.ready(ctx, done); err != nil {
		c.Kill()
		log, _ := os.ReadFile(c.logFile())
		if strings.Contains(string(log), "address already in use") {
			err = errPortTaken
		}
		return fmt.Errorf("step-ca on %s: %w; its log ends:\n%s", c.addr, err, log[max(0, len(log)-3000):])
	}
	return nil
}

func (c *StepCA) logFile() string { return filepath.Join(c.dir, "step-ca.log") }

// ready asks for the directory until it is there, step-ca dies, or time is up.
func (c *StepCA) ready(ctx context.Context, done chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.rootPEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := client.Get(c.Directory())
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("the directory has HTTP status %d", resp.StatusCode)
		}
		select {
		case <-tick.C:
		case <-done:
			return errors.New("it ended")
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// Kill ends the process at once, as a crash would, and waits for it.
func (c *StepCA) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.done
	return nil
}

// Close ends the process. The files stay for the owner of Dir to remove.
func (c *StepCA) Close() error { return c.Kill() }
