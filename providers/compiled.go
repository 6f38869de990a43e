package providers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/libdns/desec"
	"github.com/libdns/libdns"

	"autocertd/internal/dnsname"
	"autocertd/internal/printable"
	"autocertd/internal/secret"
)

// builders returns every type that is known. To compile in a libdns module, name it in go.mod, import it here, and add
// a line to the second half.
func builders() map[string]builder {
	return map[string]builder{
		"cloudflare": newCloudflare,
		"exec":       newExec,
		"manual":     newManual,
		"nsupdate":   newNSUpdate,
		"rfc2136":    newRFC2136,

		"desec": exact[desec.Provider],
	}
}

// compiled builds a provider from a libdns module whose Provider struct is T. The keys of the configuration are the
// struct's json tags, and every string may be kept elsewhere, as secrets are.
func compiled[T any, P interface {
	*T
	Client
}](opts Options) (*Provider, error) {
	c, err := compile[T, P](opts)
	if err != nil {
		return nil, err
	}
	return &Provider{Client: c}, nil
}

// exact is compiled for a module that removes a record by its value alone and no other, whatever the TTL, as the conformance
// suite shows of it. It saves listing the zone before each removal, which some APIs limit.
func exact[T any, P interface {
	*T
	Client
}](opts Options) (*Provider, error) {
	c, err := compile[T, P](opts)
	if err != nil {
		return nil, err
	}
	c.exact = true
	return &Provider{Client: c}, nil
}

func compile[T any, P interface {
	*T
	Client
}](opts Options) (*compiledClient, error) {
	var module P = new(T)
	secrets, err := decodeTagged(opts, module)
	if err != nil {
		return nil, err
	}
	path := reflect.TypeFor[T]().PkgPath()
	return &compiledClient{
		module: module,
		name:   path[strings.LastIndex(path, "/")+1:],
		redact: newRedactor(secretsAmong(secrets)).redact,
		turn:   make(chan struct{}, 1),
	}, nil
}

// secretsAmong leaves out the addresses of APIs, which an error may show.
func secretsAmong(strings map[string]secret.Secret) map[string]secret.Secret {
	secrets := map[string]secret.Secret{}
	for key, value := range strings {
		u, err := url.Parse(value.Reveal())
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Host == "" {
			secrets[key] = value
		}
	}
	return secrets
}

// compiledClient makes a Client of a libdns module. Few modules keep all of libdns's promises, so calls come one after
// the other: many modules read what is at a name, change it and write it back.
type compiledClient struct {
	module Client
	name   string
	redact func(string) string
	turn   chan struct{} // holds one token while a call runs
	exact  bool          // see the function of that name
}

// AppendRecords adds recs to the zone and returns them.
func (c *compiledClient) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, zone, recs, c.add)
}

// DeleteRecords removes exactly recs from the zone and returns them, also those that weren't there.
func (c *compiledClient) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return c.write(ctx, zone, recs, c.remove)
}

// write gives the records to one of the two, one call at a time.
func (c *compiledClient) write(ctx context.Context, zone string, recs []libdns.Record, do func(context.Context, string, []libdns.TXT) error) ([]libdns.Record, error) {
	zone, txts, err := relativeRecords(zone, recs)
	if err != nil {
		return nil, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
	}
	if err = ctx.Err(); err == nil {
		err = do(ctx, zone+".", txts)
	}
	switch {
	case err == nil:
		return asRecords(txts), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s, zone %s: %w", c.name, zone, ctx.Err())
	}
	return nil, c.explain(zone, err)
}

// add adds the records. A module that takes it for a mistake when one is there already is asked what is there, and gets the rest.
func (c *compiledClient) add(ctx context.Context, zone string, txts []libdns.TXT) error {
	_, err := c.module.AppendRecords(ctx, zone, asRecords(txts))
	getter, ok := c.module.(libdns.RecordGetter)
	if err == nil || !ok || ctx.Err() != nil || isHTTPTrouble(err) {
		return err
	}
	there, getErr := c.sets(ctx, getter, zone)
	if getErr != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(txts), func(t libdns.TXT) bool { return len(there[t.Name].with(t.Text)) > 0 })
	switch len(missing) {
	case 0:
		return nil
	case len(txts):
		return err
	}
	_, err = c.module.AppendRecords(ctx, zone, asRecords(missing))
	return err
}

// remove removes the records and no others. Modules differ in what they do with a record: remove it, or by its ID alone, or
// only with its very TTL, or the first value at the name, or all. So each gets the records that it has made itself of what is
// there; and where others share the name, the rest is set in place of the whole.
func (c *compiledClient) remove(ctx context.Context, zone string, txts []libdns.TXT) error {
	getter, ok := c.module.(libdns.RecordGetter)
	if !ok || c.exact {
		_, err := c.module.DeleteRecords(ctx, zone, asRecords(txts))
		return err
	}
	there, err := c.sets(ctx, getter, zone)
	if err != nil {
		return err
	}
	wanted := map[string][]string{}
	for _, t := range txts {
		wanted[t.Name] = append(wanted[t.Name], t.Text)
	}
	var gone, kept []libdns.Record
	var set []string
	for name, values := range wanted {
		ours := there[name].with(values...)
		others := there[name].without(values...)
		switch {
		case len(ours) == 0:
		case len(others) == 0:
			gone = append(gone, ours...)
		default:
			kept, set = append(kept, others...), append(set, name)
		}
	}
	if len(gone) > 0 {
		if _, err := c.module.DeleteRecords(ctx, zone, gone); err != nil {
			return err
		}
	}
	if len(kept) == 0 {
		return nil
	}
	setter, ok := c.module.(libdns.RecordSetter)
	if !ok {
		return fmt.Errorf("this module may remove every TXT record at %s with ours, so ours stays; remove it by hand", firstFew(slices.Sorted(slices.Values(set)), ", "))
	}
	if _, err := setter.SetRecords(ctx, zone, kept); err != nil {
		return err
	}
	there, err = c.sets(ctx, getter, zone)
	if err != nil {
		return err
	}
	for _, name := range set {
		if len(there[name].with(wanted[name]...)) > 0 {
			return fmt.Errorf("the module says that it has removed a TXT record at %s, and it is still there", name)
		}
	}
	return nil
}

// moduleSet is what a module found at one name: its own records, which may hold IDs.
type moduleSet []libdns.Record

// sets asks the module for the TXT records of the zone, by the name relative to it.
func (c *compiledClient) sets(ctx context.Context, getter libdns.RecordGetter, zone string) (map[string]moduleSet, error) {
	all, err := getter.GetRecords(ctx, zone)
	if err != nil {
		return nil, err
	}
	sets := map[string]moduleSet{}
	for _, rec := range all {
		if rr := rec.RR(); strings.EqualFold(rr.Type, "TXT") {
			name := libdns.RelativeName(dnsname.Canonical(libdns.AbsoluteName(rr.Name, zone)), dnsname.Canonical(zone))
			sets[name] = append(sets[name], rec)
		}
	}
	return sets, nil
}

// with returns the records with one of the values.
func (s moduleSet) with(values ...string) (list []libdns.Record) {
	for _, rec := range s {
		if slices.Contains(values, valueOf(rec)) {
			list = append(list, rec)
		}
	}
	return list
}

// without returns the records with other values.
func (s moduleSet) without(values ...string) (list []libdns.Record) {
	for _, rec := range s {
		if !slices.Contains(values, valueOf(rec)) {
			list = append(list, rec)
		}
	}
	return list
}

// valueOf returns the value of a TXT record. Some modules leave the quotes of the API around it.
func valueOf(rec libdns.Record) string {
	value := rec.RR().Data
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return value
}

// httpTrouble finds the response codes of an API that has trouble, or enough of us, in the texts of modules. They have no
// errors of a type that could be asked.
var httpTrouble = regexp.MustCompile(`(?i)\b(?:status|http|code)\b\D{0,20}(?:429|5\d\d)\b|\b(?:429 too many|500 internal|502 bad gate|503 service|504 gateway)`)

func isHTTPTrouble(err error) bool { return httpTrouble.MatchString(err.Error()) }

// explain makes an error of one that the module made. Of what went wrong it tells no more than that the API can't be
// reached or has trouble, and what it quotes may hold secrets.
func (c *compiledClient) explain(zone string, err error) *Error {
	text := printable.Short(c.redact(err.Error()), maxReason)
	_, unreachable := errors.AsType[net.Error](err)
	return &Error{
		Problem:   fmt.Sprintf("%s, zone %s: %s", c.name, zone, text),
		Err:       errors.New(text),
		retryable: unreachable || isHTTPTrouble(err),
		whole:     unreachable,
	}
}
