package providers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libdns/libdns"
)

const nsupdateTimeout = 15 * time.Second

// nsupdateOptions are the keys of a provider of type nsupdate.
type nsupdateOptions struct {
	Server  string        `toml:"server"`
	Servers []string      `toml:"servers"`
	KeyFile string        `toml:"key_file" reads:"file"`
	KeyName string        `toml:"key_name"`
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
		program:  program{path: command, args: o.arguments(), env: environment(o.Env), timeout: timeout},
		key:      key,
		gss:      o.GSS,
		logger:   opts.logger(),
		seen:     newMemories(),
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
			return "", at("command", err)
		}
		return o.Command, nil
	}
	path, err := exec.LookPath("nsupdate")
	if err != nil {
		return "", at("command", errors.New(`nsupdate isn't installed: apt-get install bind9-dnsutils; or name it: command = "/path/to/nsupdate"`))
	}
	return path, nil
}

// authentication returns the key, a zero one for GSS-TSIG and for updates without a signature.
func (o nsupdateOptions) authentication(opts Options) (tsigKey, error) {
	switch {
	case o.GSS && o.KeyFile != "":
		return tsigKey{}, errors.New("key_file and gss: give one of the two")
	case o.KeyFile == "" && o.KeyName != "":
		return tsigKey{}, at("key_name", errors.New("says which key of key_file is ours; name the file too"))
	case !o.GSS && o.Keytab != "":
		return tsigKey{}, at("keytab", errors.New("needs gss = true"))
	case o.Keytab != "":
		if err := checkKeytab(opts.path(o.Keytab)); err != nil {
			return tsigKey{}, at("keytab", err)
		}
	case o.KeyFile != "":
		key, err := readTSIGKey(opts.path(o.KeyFile), o.KeyName)
		if err != nil {
			return tsigKey{}, at("key_file", err)
		}
		return key, nil
	}
	return tsigKey{}, nil
}

// arguments returns what stands on the command line, which everybody on the machine can read: no secret.
func (o nsupdateOptions) arguments() []string {
	var args []string
	if !o.UDP {
		args = append(args, "-v")
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
			return at("args", fmt.Errorf(`%s needs a number as the next string, such as "%s", "5"`, args[i-1], args[i-1]))
		default:
			return at("args", fmt.Errorf("%.40q isn't allowed; allowed are -4, -6, -o, -r N, -t N, -u N; keys and servers have keys of their own", args[i]))
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
	logger  *slog.Logger
	seen    memories
	warned  atomic.Bool // that the signatures of a server's answers can't be verified
}

// AppendRecords adds recs to the zone and returns them.
func (c *nsupdateClient) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, recs, update{zone: zone})
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *nsupdateClient) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, recs, update{zone: zone, removes: true})
}

// write sends recs in as few messages as can hold them. Each message is atomic.
func (c *nsupdateClient) write(ctx context.Context, recs []libdns.Record, u update) ([]libdns.Record, error) {
	u, err := u.of(recs)
	if err != nil {
		return nil, err
	}
	return u.send(u.messages(), func(part update) error {
		return c.each(ctx, u.zone, func(ctx context.Context, server string) error { return c.exchange(ctx, server, part) })
	})
}

// script is what nsupdate reads, with the key, which the command line would show to everybody. With GSS each name goes in
// a message of its own: of several in one message, Samba's module for BIND makes the last one ours and the others nobody's,
// which we may then never remove. The records need no quoting: txtRecords lets nothing pass that would.
func (c *nsupdateClient) script(host, port string, u update) string {
	var b strings.Builder
	fmt.Fprintf(&b, "server %s %s\nzone %s.\n", host, port, u.zone)
	if c.key.name != "" {
		fmt.Fprintf(&b, "key %s:%s %s\n", c.key.algorithm, c.key.name, c.key.secret)
	}
	sort := slices.Clone(u.records)
	if c.gss {
		slices.SortStableFunc(sort, func(x, y libdns.TXT) int { return strings.Compare(u.full(x), u.full(y)) })
	}
	for i, t := range sort {
		name := u.full(t)
		if c.gss && i > 0 && u.full(sort[i-1]) != name {
			fmt.Fprintf(&b, "send\nzone %s.\n", u.zone)
		}
		if u.removes {
			fmt.Fprintf(&b, "update delete %s. TXT \"%s\"\n", name, t.Text)
		} else {
			fmt.Fprintf(&b, "update add %s. %d TXT \"%s\"\n", name, int(t.TTL/time.Second), t.Text)
		}
	}
	b.WriteString("send\n")
	return b.String()
}

// exchange has nsupdate send one message to one server.
func (c *nsupdateClient) exchange(ctx context.Context, server string, u update) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return err
	}
	var said []string
	stderr := &lineWriter{line: func(line string) { said = append(said, strings.TrimLeft(line, "; ")) }}
	_, err = c.program.run(ctx, []byte(c.script(host, port, u)), stderr)
	if err == nil || ctx.Err() != nil {
		return err
	}
	failure := nsupdateFailure{err: err, said: said}
	return c.explain(ctx, diagnosis{prober: prober{server: server, key: c.key}, update: u, err: failure, seen: &c.seen}, failure)
}
