package providers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

const nsupdateTimeout = 15 * time.Second

// nsupdateOptions are the keys of a provider of type nsupdate.
type nsupdateOptions struct {
	Server  string        `toml:"server"`
	Servers []string      `toml:"servers"`
	KeyFile string        `toml:"key_file"`
	GSS     bool          `toml:"gss"`
	Keytab  string        `toml:"keytab"`
	UDP     bool          `toml:"udp"`
	Args    []string      `toml:"args"`
	Command string        `toml:"command"`
	Env     []string      `toml:"env"`
	Timeout time.Duration `toml:"timeout"`
}

// newNSUpdate builds a provider that runs BIND's nsupdate for each update.
func newNSUpdate(opts Options) (*Provider, error) {
	var o nsupdateOptions
	if err := opts.Decode(&o); err != nil {
		return nil, err
	}
	servers, serversErr := serverList(o.Server, o.Servers)
	command, commandErr := o.command()
	key, authErr := o.authentication(opts)
	timeout, timeoutErr := programTimeout(o.Timeout, nsupdateTimeout)
	if err := errors.Join(serversErr, commandErr, authErr, checkNSUpdateArgs(o.Args), checkEnv(o.Env), timeoutErr); err != nil {
		return nil, err
	}
	c := &nsupdateClient{
		failover: failover{servers: servers},
		program:  program{path: command, args: o.arguments(opts), env: environment(o.Env), timeout: timeout},
		key:      key,
		gss:      o.GSS,

		selective: memory{keep: policyTime},
	}
	if o.GSS {
		c.program.env = o.kerberosEnv(opts)
	}
	return &Provider{Client: c, Servers: servers, Key: key.shared(), Timeout: timeout * time.Duration(len(servers))}, nil
}

// command returns the path of nsupdate.
func (o nsupdateOptions) command() (string, error) {
	if o.Command != "" {
		if err := checkProgram(o.Command); err != nil {
			return "", fmt.Errorf("command: %w", err)
		}
		return o.Command, nil
	}
	path, err := exec.LookPath("nsupdate")
	if err != nil {
		return "", errors.New(`command: nsupdate isn't installed: apt-get install bind9-dnsutils; or name it: command = "/path/to/nsupdate"`)
	}
	return path, nil
}

// authentication returns the key, a zero one for GSS-TSIG and for updates without a signature.
func (o nsupdateOptions) authentication(opts Options) (tsigKey, error) {
	switch {
	case o.GSS && o.KeyFile != "":
		return tsigKey{}, errors.New("key_file and gss: give one of the two")
	case !o.GSS && o.Keytab != "":
		return tsigKey{}, errors.New("keytab: needs gss = true")
	case o.Keytab != "":
		if err := checkKeytab(opts.path(o.Keytab)); err != nil {
			return tsigKey{}, fmt.Errorf("keytab: %w", err)
		}
	case o.KeyFile != "":
		key, err := readTSIGKey(opts.path(o.KeyFile))
		if err != nil {
			return tsigKey{}, fmt.Errorf("key_file: %w", err)
		}
		return key, nil
	}
	return tsigKey{}, nil
}

// arguments returns what stands on the command line, which everybody on the machine can read: no secret.
func (o nsupdateOptions) arguments(opts Options) []string {
	var args []string
	if !o.UDP {
		args = append(args, "-v")
	}
	if o.KeyFile != "" {
		args = append(args, "-k", opts.path(o.KeyFile))
	}
	if o.GSS {
		args = append(args, "-g")
	}
	return append(args, o.Args...)
}

// checkNSUpdateArgs allows the flags that change how an update travels. The others are keys of their own, would show a
// secret, or print what isn't asked for.
func checkNSUpdateArgs(args []string) error {
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-4", "-6", "-o":
		case "-r", "-t", "-u":
			i++
			if i < len(args) {
				if _, err := strconv.ParseUint(args[i], 10, 16); err == nil {
					continue
				}
			}
			return fmt.Errorf(`args: %s needs a number as the next string, such as "%s", "5"`, args[i-1], args[i-1])
		default:
			return fmt.Errorf("args: %.40q isn't allowed; allowed are -4, -6, -o, -r N, -t N, -u N; keys and servers have keys of their own", args[i])
		}
	}
	return nil
}

// nsupdateClient writes records by BIND's nsupdate, one run for each message.
type nsupdateClient struct {
	failover
	program program
	key     tsigKey // zero for GSS-TSIG and without a signature
	gss     bool

	selective memory // see diagnosis
}

// AppendRecords adds recs to the zone and returns them.
func (c *nsupdateClient) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, zone, recs, func(name string, t libdns.TXT) string {
		return fmt.Sprintf("update add %s. %d TXT \"%s\"\n", name, int(t.TTL/time.Second), t.Text)
	})
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *nsupdateClient) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, zone, recs, func(name string, t libdns.TXT) string {
		return fmt.Sprintf("update delete %s. TXT \"%s\"\n", name, t.Text)
	})
}

// write sends recs in as few messages as can hold them. Each message is atomic. The records need no quoting: txtRecords
// lets nothing pass that would.
func (c *nsupdateClient) write(ctx context.Context, zone string, recs []libdns.Record, line func(string, libdns.TXT) string) ([]libdns.Record, error) {
	zone, err := zoneName(zone)
	if err != nil {
		return nil, err
	}
	txts, err := txtRecords(recs)
	if err != nil {
		return nil, fmt.Errorf("zone %s: %w", zone, err)
	}
	for part := range messages(txts, len(zone)) {
		u := update{zone: zone, records: part}
		var script strings.Builder
		fmt.Fprintf(&script, "zone %s.\n", zone)
		for _, t := range part {
			script.WriteString(line(plainName(libdns.AbsoluteName(t.Name, zone)), t))
		}
		script.WriteString("send\n")
		if err := c.each(ctx, zone, func(ctx context.Context, server string) error {
			return c.exchange(ctx, server, u, script.String())
		}); err != nil {
			return nil, err
		}
	}
	return asRecords(txts), nil
}

// exchange has nsupdate send one message to one server.
func (c *nsupdateClient) exchange(ctx context.Context, server string, u update, script string) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return err
	}
	var said []string
	stderr := &lineWriter{line: func(line string) { said = append(said, line) }}
	_, err = c.program.run(ctx, []byte(fmt.Sprintf("server %s %s\n%s", host, port, script)), stderr)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return c.explain(ctx, server, u, nsupdateFailure{err: err, said: said})
}
