package providers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"

	"autocertd/internal/printable"
	"autocertd/internal/secret"
)

const (
	execTimeout    = 30 * time.Second
	execMaxTimeout = 10 * time.Minute
)

// execOptions are the keys of a provider of type exec.
type execOptions struct {
	Command []string                 `toml:"command"`
	Timeout time.Duration            `toml:"timeout"`
	Env     []string                 `toml:"env"`
	Options map[string]secret.Secret `toml:"options"`
}

// newExec builds a provider that runs a program for each request.
func newExec(opts Options) (*Provider, error) {
	var o execOptions
	if err := opts.Decode(&o); err != nil {
		return nil, err
	}
	var commandErr error
	if len(o.Command) == 0 {
		commandErr = at("command", errors.New(`missing; name a program by its absolute path: command = ["/usr/local/bin/my-dns"]`))
	} else if err := checkProgram(o.Command[0]); err != nil {
		commandErr = at("command", err)
	}
	timeout, timeoutErr := programTimeout(o.Timeout, execTimeout)
	if err := errors.Join(commandErr, timeoutErr, checkEnv(o.Env)); err != nil {
		return nil, err
	}
	c := &execClient{
		program: program{path: o.Command[0], args: o.Command[1:], env: environment(o.Env), timeout: timeout},
		options: o.Options,
		redact:  newRedactor(o.Options).redact,
		logger:  opts.logger(),
	}
	return &Provider{Client: c, Timeout: timeout}, nil
}

func programTimeout(d, otherwise time.Duration) (time.Duration, error) {
	if d == 0 {
		return otherwise, nil
	}
	if d < time.Second || d > execMaxTimeout {
		return 0, at("timeout", fmt.Errorf("must be between 1s and %v", execMaxTimeout))
	}
	return d, nil
}

// checkEnv wants names of variables, not assignments: a secret in the configuration belongs into options.
func checkEnv(names []string) error {
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "= \x00") {
			return at("env", errors.New(`a list of the names of variables that are passed on, without values: env = ["SSL_CERT_FILE"]`))
		}
	}
	return nil
}

// execClient writes records by a program that speaks version 1 of the protocol in exec_protocol.go.
type execClient struct {
	program program
	options map[string]secret.Secret
	redact  func(string) string
	logger  *slog.Logger
}

// AppendRecords has the program add recs to the zone and returns them.
func (c *execClient) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.request(ctx, "append", zone, recs)
}

// DeleteRecords has the program remove exactly recs from the zone and returns them, also those that weren't there.
func (c *execClient) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.request(ctx, "delete", zone, recs)
}

func (c *execClient) request(ctx context.Context, action, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	zone, txts, err := relativeRecords(zone, recs)
	if err != nil {
		return nil, err
	}
	request := newExecRequest(action, zone, txts)
	for _, name := range slices.Sorted(maps.Keys(c.options)) {
		request.Options[name] = c.options[name].Reveal()
	}
	in, err := request.line()
	if err != nil {
		return nil, err // it holds strings and numbers alone: can't happen
	}
	stderr := &lineWriter{redact: c.redact, line: func(line string) {
		c.logger.InfoContext(ctx, "a provider's program says", "program", c.program.path, "zone", zone, "line", line)
	}}
	out, err := c.program.run(ctx, in, stderr)
	if ctx.Err() != nil && err != nil {
		return nil, fmt.Errorf("%s, zone %s: %w", c.program.path, zone, ctx.Err())
	}
	if failure := c.judge(zone, out, err, stderr.last); failure != nil {
		return nil, failure
	}
	return asRecords(txts), nil
}

// judge makes an error of what the program replied and how it ended, nil if it did what it was asked to.
func (c *execClient) judge(zone string, out []byte, err error, lastLine string) *Error {
	e := &Error{Err: err, whole: true}
	exit, exited := errors.AsType[*exec.ExitError](err)
	if err != nil && !exited {
		e.Problem = fmt.Sprintf("%s failed for zone %s: %v", c.program.path, zone, err)
		switch {
		case errors.Is(err, errProgramTimeout):
			e.Problem = fmt.Sprintf("%s didn't end within %v for zone %s", c.program.path, c.program.timeout, zone)
			e.Hint, e.retryable = fmt.Sprintf(`if it needs longer: timeout = "%v"`, 2*c.program.timeout), true
		case !errors.Is(err, errProgramOutput):
			e.Hint = "see whether it is there and may be executed: ls -l " + c.program.path
		}
		return e
	}
	reply, replyErr := parseExecReply(out)
	switch {
	case replyErr == nil && reply.Error != "":
		text := printable.Short(c.redact(reply.Error), maxReason)
		e.Problem = fmt.Sprintf("%s, zone %s: %s", c.program.path, zone, text)
		e.Err, e.retryable, e.whole = errors.New(text), reply.Retryable, reply.Whole
	case exited:
		e.Problem = fmt.Sprintf("%s failed for zone %s (%v) without saying why in a reply", c.program.path, zone, exit.ProcessState)
		if lastLine != "" {
			e.Problem += "; its last line on standard error: " + lastLine
		}
	case replyErr != nil:
		text := c.redact(replyErr.Error())
		if errors.Is(replyErr, errNoJSON) {
			text += fmt.Sprintf(" but %q", printable.Short(c.redact(string(out)), maxReason))
		}
		e.Problem = fmt.Sprintf("%s gave no valid reply for zone %s: %s", c.program.path, zone, text)
		e.Err, e.Hint = errors.New(text), `it must print one reply, such as {"version":1,"ok":true}, on standard output and nothing else there`
	default:
		return nil
	}
	return e
}
