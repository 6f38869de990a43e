package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopTimeout is how long the daemon may take to remove its records and end.
const stopTimeout = 40 * time.Second

// daemon is the real daemon in a process of its own.
type daemon struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan error
}

// startDaemon starts it with its log going to a file.
func startDaemon(binary, config, logPath string) (*daemon, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "run", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own: Ctrl-C reaches the sandbox, which then ends the daemon in order. If the sandbox is killed, the
	// daemon ends too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the daemon: %w", err), log.Close())
	}
	d := &daemon{cmd: cmd, log: log, ended: make(chan error, 1)}
	go func() { d.ended <- cmd.Wait() }() // ends with the process, which stop waits for
	return d, nil
}

// stop ends the daemon and waits for it.
func (d *daemon) stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	defer d.log.Close()
	select {
	case err := <-d.ended:
		return err
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("the daemon doesn't end within %s", stopTimeout), d.cmd.Process.Kill())
	}
}
