package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"autocertd/internal/cure"
	"autocertd/internal/suggest"
)

// merge adds one file to all others.
func (l *loader) merge(all, raw *rawConfig) {
	once(l, &all.StateDir, raw.StateDir)
	once(l, &all.Schedule, raw.Schedule)
	once(l, &all.Concurrency, raw.Concurrency)
	once(l, &all.Renewal, raw.Renewal)
	once(l, &all.Defaults, raw.Defaults)
	once(l, &all.Resolvers, raw.Resolvers)
	once(l, &all.Log, raw.Log)
	onceByName(l, &all.CAs, raw.CAs)
	onceByName(l, &all.Providers, raw.Providers)
	all.Hostnames.Value = append(all.Hostnames.Value, raw.Hostnames.Value...)
	all.Hostnames.set = all.Hostnames.set || raw.Hostnames.set
	all.Certificates = append(all.Certificates, raw.Certificates...)
	all.Outputs = append(all.Outputs, raw.Outputs...)
}

// once takes over what may stand in one file only.
func once[T any](l *loader, all *field[T], one field[T]) {
	switch {
	case !one.set:
	case all.set:
		l.fail(one.at, fmt.Sprintf("is set already at %s", all.at), "keep one of the two")
	default:
		*all = one
	}
}

// onceByName takes over tables, each of which may stand in one file only.
func onceByName[T any](l *loader, all *field[map[string]field[T]], one field[map[string]field[T]]) {
	if !all.set {
		*all = one
		return
	}
	all.ok = all.ok && (one.ok || !one.set)
	if all.Value == nil { // the first file has something else there
		all.Value = make(map[string]field[T])
	}
	for _, name := range slices.Sorted(maps.Keys(one.Value)) {
		f := all.Value[name]
		once(l, &f, one.Value[name])
		all.Value[name] = f
	}
}

// build makes the snapshot from what the files say.
func (l *loader) build(raw *rawConfig) {
	c := l.config
	c.StateDir = DefaultStateDir
	if raw.StateDir.ok {
		c.StateDir = l.absolute(raw.StateDir)
		if info, err := os.Stat(c.StateDir); err == nil && !info.IsDir() || errors.Is(err, syscall.ENOTDIR) {
			l.fail(raw.StateDir.at, fmt.Sprintf("%q is, or leads through, a file", shorten(c.StateDir)), "name a folder; it is made where it is missing")
		}
	}
	c.Schedule = DefaultSchedule
	if f := raw.Schedule; f.ok {
		c.Schedule = f.Value
		l.ask(f, l.checks.Schedule)
	}
	c.Concurrency = DefaultConcurrency
	if f := raw.Concurrency; f.ok {
		c.Concurrency = f.Value
		if f.Value < 1 || f.Value > 1000 {
			l.fail(f.at, fmt.Sprintf("%d must be between 1 and 1000", f.Value), "")
		}
	}
	l.buildRenewal(raw.Renewal.Value)
	l.buildLog(raw.Log.Value)
	public := raw.Resolvers.Value.Public
	l.resolvers = len(public.Value) > 0 || public.set && !public.ok || raw.Resolvers.set && !raw.Resolvers.ok
	for _, f := range public.Value {
		if address, ok := l.address(f, ipOnly); ok {
			c.Resolvers = append(c.Resolvers, address)
		}
	}
	l.buildCAs(raw.CAs)
	l.buildProviders(raw.Providers)
	l.buildCertificates(raw)
	l.checkOutputs(raw.Outputs)
}

// absolute returns a path in its shortest spelling.
func (l *loader) absolute(f field[string]) string {
	if !f.ok {
		return ""
	}
	if !filepath.IsAbs(f.Value) || strings.Contains(f.Value, "\x00") {
		l.fail(f.at, fmt.Sprintf("%q must be an absolute path", shorten(f.Value)), "")
	} else if strings.ContainsFunc(f.Value, unicode.IsControl) {
		l.fail(f.at, fmt.Sprintf("%q holds a control character", shorten(f.Value)), "such as a line break; write the path without it")
	}
	return filepath.Clean(f.Value)
}

// ask lets the caller judge a text.
func (l *loader) ask(f field[string], check func(string) error) {
	if check == nil {
		return
	}
	if err := check(f.Value); err != nil {
		l.fail(f.at, err.Error(), cure.Of(err))
	}
}

func (l *loader) buildRenewal(raw rawRenewal) {
	if f := raw.Window; f.ok {
		l.config.Renewal.Window = f.Value
		l.ask(f, l.checks.Window)
	}
	if f := raw.Emergency; f.ok {
		l.config.Renewal.Emergency = f.Value
		if f.Value <= 0 {
			l.fail(f.at, "must be more than nothing", "leave it out to derive it from the lifetime")
		}
	}
}

func (l *loader) buildLog(raw rawLog) {
	level := l.oneOf(raw.Level, "info", "debug", "warn", "error")
	if err := l.config.Log.Level.UnmarshalText([]byte(level)); err != nil {
		l.config.Log.Level = slog.LevelInfo // oneOf has told
	}
	l.config.Log.Format = l.oneOf(raw.Format, "auto", "text", "json")
}

// oneOf returns the value of a key that knows a few words, the first of which is the default.
func (l *loader) oneOf(f field[string], words ...string) string {
	if !f.ok {
		return words[0]
	}
	for _, word := range words {
		if f.Value == word {
			return word
		}
	}
	hint := suggest.DidYouMean(f.Value, words)
	l.fail(f.at, fmt.Sprintf("%q must be one of %s", shorten(f.Value), strings.Join(words, ", ")), hint)
	return words[0]
}
