package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"autocertd/internal/config"
	"autocertd/internal/deploy"
	"autocertd/internal/printable"
	"autocertd/internal/store"
	"autocertd/internal/term"
)

// namedInLog is the number of names that a log line lists before it counts the rest.
const namedInLog = 5

// some names the first things of a list, and counts the others.
func some(list []string, kind string) string {
	named := slices.Clone(list)
	for i := range named[:min(len(named), namedInLog)] {
		named[i] = printable.Short(named[i], 200)
	}
	return term.Listed(named, namedInLog, kind)
}

// part is one kind of things in a configuration: by name, what is said of each.
type part struct {
	kind   string
	things func(s *settings) map[string]any
	equal  func(a, b any) bool
}

// parts are all that can come, go or change by a reload. What is said of the daemon as a whole are things of the kind
// "setting", so that their names stand alone.
func parts() []part {
	return []part{
		{"certificate", func(s *settings) map[string]any {
			return byName(s.Certificates, func(c config.Certificate) string { return c.Name })
		}, reflect.DeepEqual},
		{"CA", func(s *settings) map[string]any {
			return byName(s.CAs, func(ca config.CA) string { return ca.Name })
		}, reflect.DeepEqual},
		{"provider", func(s *settings) map[string]any {
			return byName(s.Providers, func(p *config.Provider) string { return p.Name })
		}, func(a, b any) bool { return a.(*config.Provider).Equal(b.(*config.Provider)) }},
		{"output", func(s *settings) map[string]any {
			return byName(s.outputs.List, func(o deploy.Output) string { return filepath.Join(o.Dir, o.File) })
		}, reflect.DeepEqual},
		{"setting", func(s *settings) map[string]any {
			return map[string]any{"schedule": s.Schedule, "concurrency": s.Concurrency, "window": s.Renewal.Window, "emergency": s.Renewal.Emergency,
				"resolvers": s.Resolvers, "log": s.Log}
		}, reflect.DeepEqual},
	}
}

// byName makes a map of a list. Things of one name are one: outputs may share a folder.
func byName[T any](list []T, name func(T) string) map[string]any {
	things := make(map[string]any, len(list))
	for _, thing := range list {
		key := name(thing)
		if other, ok := things[key]; ok {
			things[key] = []any{other, thing}
		} else {
			things[key] = thing
		}
	}
	return things
}

// differences says what a configuration has that another had not, what it lost, and what is otherwise in it, as the
// attributes of a log line.
func differences(before, after *settings) (attrs []any) {
	texts := map[string][]string{}
	for _, p := range parts() {
		old, young := p.things(before), p.things(after)
		names := map[string][]string{}
		for name, thing := range young {
			other, known := old[name]
			switch {
			case !known:
				names["added"] = append(names["added"], name)
			case !same(p, other, thing):
				names["changed"] = append(names["changed"], name)
			}
		}
		for name := range old {
			if _, kept := young[name]; !kept {
				names["removed"] = append(names["removed"], name)
			}
		}
		for what, list := range names {
			slices.Sort(list)
			text := some(list, p.kind)
			if p.kind != "setting" {
				text = p.kind + " " + text
			}
			texts[what] = append(texts[what], text)
		}
	}
	for _, what := range []string{"added", "removed", "changed"} {
		if len(texts[what]) > 0 {
			attrs = append(attrs, what, strings.Join(texts[what], "; "))
		}
	}
	return attrs
}

// same compares two things of one name.
func same(p part, a, b any) bool {
	x, several := a.([]any)
	y, severalToo := b.([]any)
	if several || severalToo {
		return several && severalToo && slices.EqualFunc(x, y, func(a, b any) bool { return same(p, a, b) })
	}
	return p.equal(a, b)
}

// sourcesObject lists the files of the configuration that the daemon took over last, as they were then.
const sourcesObject = "sources.json"

func saveSources(ctx context.Context, store store.Store, sources *config.Sources) error {
	data, err := json.Marshal(sources)
	if err != nil {
		return err
	}
	return store.SaveLazily(ctx, sourcesObject, data)
}

// notTakenOver returns the files that changed since a daemon took the configuration over last.
func notTakenOver(ctx context.Context, store store.Store) []config.Change {
	data, err := store.Load(ctx, sourcesObject)
	if err != nil {
		return nil // a daemon of an earlier version wrote none
	}
	changes, err := config.ChangesSince(data)
	if err != nil {
		return nil
	}
	return changes
}
