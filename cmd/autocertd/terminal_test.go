package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// terminal STATUS COLUMNS COMMAND… runs a command with all its output on a terminal of that many columns and 24 lines.
// What came out is the standard output then, with the terminal's line ends.
func scriptTerminal(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: terminal STATUS COLUMNS COMMAND…")
	}
	columns, err := strconv.ParseUint(args[1], 10, 16)
	ts.Check(err)
	text, status, err := onTerminal(uint16(columns), func(tty *os.File) *exec.Cmd {
		// A shell finds the command in the script's path and environment.
		cmd := exec.Command("/bin/sh", append([]string{"-c", `exec "$@"`, "sh"}, args[2:]...)...)
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), tty, tty, tty
		for _, name := range []string{"PATH", "HOME", "TERM", "TZ", "NO_COLOR", "AUTOCERTD_CONFIG", "GORACE"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
		return cmd
	})
	ts.Check(err)
	_, err = ts.Stdout().Write(text)
	ts.Check(err)
	ts.Logf("[terminal]\n%q", text)
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// onTerminal runs a command on a new terminal, and returns all that it wrote and its exit status.
func onTerminal(columns uint16, command func(tty *os.File) *exec.Cmd) (text []byte, status int, err error) {
	screen, tty, err := openTerminal(columns)
	if err != nil {
		return nil, 0, err
	}
	defer screen.Close()
	var all bytes.Buffer
	read := make(chan error, 1)
	cmd := command(tty)
	err = cmd.Start()
	tty.Close() // now the command alone holds it, so that its end is the end of what there is to read
	if err != nil {
		return nil, 0, err
	}
	go func() {
		_, err := io.Copy(&all, screen)
		read <- err
	}()
	waited := cmd.Wait()
	if err := <-read; !errors.Is(err, syscall.EIO) { // EIO is how a terminal that nobody holds says its end
		return nil, 0, fmt.Errorf("reading the terminal: %w", err)
	}
	if exit, ok := errors.AsType[*exec.ExitError](waited); ok {
		return all.Bytes(), exit.ExitCode(), nil
	}
	return all.Bytes(), 0, waited
}

// openTerminal returns both sides of a new terminal: what shows on the screen, and what programs hold.
func openTerminal(columns uint16) (screen, tty *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		return nil, nil, errors.Join(err, screen.Close())
	}
	return screen, tty, nil
}
