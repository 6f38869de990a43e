package providers

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"autocertd/internal/secret"
)

// rfc2136Options are the keys of a provider of type rfc2136.
type rfc2136Options struct {
	Server  string        `toml:"server"`
	Servers []string      `toml:"servers"`
	KeyFile string        `toml:"key_file" reads:"file"`
	KeyName string        `toml:"key_name"`
	KeyAlg  string        `toml:"key_alg"`
	Key     secret.Secret `toml:"key"`
	Timeout time.Duration `toml:"timeout"`
}

// newRFC2136 builds a provider that sends dynamic updates (RFC 2136), signed with a TSIG key.
func newRFC2136(opts Options) (*Provider, error) {
	var o rfc2136Options
	if err := opts.Decode(&o); err != nil {
		return nil, err
	}
	servers, serversErr := serverList(o.Server, o.Servers)
	key, keyErr := o.tsigKey(opts)
	timeout, timeoutErr := programTimeout(o.Timeout, answerTime)
	if err := errors.Join(serversErr, keyErr, timeoutErr); err != nil {
		return nil, err
	}
	c := &rfc2136Client{failover: failover{servers: servers}, key: key, wait: timeout, seen: newMemories()}
	return &Provider{
		Client:     c,
		Servers:    servers,
		Key:        key.shared(),
		Timeout:    (dialTime + timeout) * time.Duration(len(servers)),
		ExplainKey: c.ExplainKey,
	}, nil
}

// serverList returns host:port of every server, given as one or as several, and reports all mistakes.
func serverList(one string, several []string) ([]string, error) {
	list := several
	if one != "" {
		list = []string{one}
	}
	if one != "" && len(several) > 0 {
		return nil, errors.New(`server and servers: give one of the two`)
	}
	if len(list) == 0 {
		return nil, at("server", errors.New(`missing; name the zone's primary: server = "ns1.example.com"`))
	}
	var servers []string
	var errs []error
	for _, s := range list {
		server, err := hostPort(s)
		servers, errs = append(servers, server), append(errs, err)
	}
	return servers, errors.Join(errs...)
}

// hostPort parses a host name or address, with or without a port, and adds port 53 where there is none.
func hostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "53"
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			host = s[1 : len(s)-1]
		}
	}
	_, addrErr := netip.ParseAddr(host)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if portErr != nil || n == 0 || addrErr != nil && !isName(host) {
		return "", at("server", fmt.Errorf(`%.80q is neither a host nor host:port, such as "ns1.example.com", "192.0.2.1:53" or "[2001:db8::1]:53"`, s))
	}
	return net.JoinHostPort(host, port), nil
}

// tsigKey returns the key, which is given in exactly one way.
func (o rfc2136Options) tsigKey(opts Options) (tsigKey, error) {
	inline := o.KeyAlg != "" || o.Key.IsSet()
	switch {
	case o.KeyFile == "" && !inline && o.KeyName == "":
		return tsigKey{}, at("key_file", errors.New("missing; updates are signed: name a file that tsig-keygen has written"))
	case o.KeyFile != "" && inline:
		return tsigKey{}, at("key_file", errors.New("leave out key_alg and key, which the file holds; key_name says which of several keys in it is ours"))
	case o.KeyFile == "":
		return newTSIGKey(o.KeyName, cmp.Or(o.KeyAlg, tsigAlgorithms()[0]), o.Key.Reveal())
	}
	key, err := readTSIGKey(opts.path(o.KeyFile), o.KeyName)
	if err != nil {
		return tsigKey{}, at("key_file", err)
	}
	return key, nil
}
