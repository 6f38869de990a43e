package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/secret"
	"autocertd/internal/suggest"
)

// A field is a value from a file together with its place.
type field[T any] struct {
	Value T
	at    place
	set   bool // the key is in the file
	ok    bool // and its value has the right type
}

func (f *field[T]) found(at place) any {
	f.at, f.set = at, true
	return &f.Value
}

func (f *field[T]) good() { f.ok = true }

// A list is an array of strings, each with its place.
type list = field[[]field[string]]

// A rest is what remains of a table for somebody else to decode.
type rest struct {
	values map[string]any
	marks  *mark
	at     place
}

// decode stores what remains in dst, a pointer to a struct with toml tags. The keys that are known besides are those that
// were decoded before.
func (r *rest) decode(dst any, sources *Sources, known []string) Problems {
	d := &decoder{file: r.at.file, sources: sources, known: known}
	d.table(r.values, r.marks, r.at, reflect.ValueOf(dst).Elem())
	return d.problems
}

// A decoder turns decoded TOML into structs, and notes every mistake. It stands in for the library's own decoder, which
// matches keys without regard to case, takes 5 for a duration of 5 ns, ignores unknown keys, and stops at the first
// mistake.
type decoder struct {
	file     string
	sources  *Sources
	known    []string // keys of the outermost table besides those of its struct
	outputs  []string // keys of an [[output]] besides those of rawOutput
	problems Problems
}

func (d *decoder) fail(at place, message, hint string) bool {
	d.problems = append(d.problems, at.problem(message, hint))
	return false
}

// value stores v in dst, and reports whether v itself has the right type. What is wrong inside a table or an array is
// only noted.
func (d *decoder) value(v any, m *mark, at place, dst reflect.Value) bool {
	at.line = m.line
	switch target := dst.Addr().Interface().(type) {
	case interface {
		found(at place) any
		good()
	}:
		ok := d.value(v, m, at, reflect.ValueOf(target.found(at)).Elem())
		if ok {
			target.good()
		}
		return ok
	case *secret.Secret:
		d.sources.noteSecret(v, filepath.Dir(d.file))
		return d.check(at, target.Load(v, filepath.Dir(d.file)))
	case interface{ UnmarshalTOML(any) error }:
		return d.check(at, target.UnmarshalTOML(v))
	case *time.Duration:
		return d.duration(v, at, target)
	case encoding.TextUnmarshaler:
		text, ok := v.(string)
		if !ok {
			return d.mismatch(at, "a string", v)
		}
		return d.check(at, target.UnmarshalText([]byte(text)))
	}
	switch dst.Kind() {
	case reflect.Pointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		return d.value(v, m, at, dst.Elem())
	case reflect.Struct:
		table, ok := v.(map[string]any)
		if !ok {
			return d.mismatch(at, "a table", v)
		}
		d.table(table, m, at, dst)
		return true
	case reflect.Map:
		return d.named(v, m, at, dst)
	case reflect.Slice:
		return d.array(v, m, at, dst)
	}
	return d.scalar(v, at, dst)
}

func (d *decoder) check(at place, err error) bool {
	if err == nil {
		return true
	}
	p := at.problem(err.Error(), cure.Of(err))
	p.unreadable = errors.Is(err, fs.ErrPermission)
	d.problems = append(d.problems, p)
	return false
}

func (d *decoder) mismatch(at place, want string, v any) bool {
	return d.fail(at, "must be "+want+", not "+typeName(v), "")
}

func (d *decoder) duration(v any, at place, dst *time.Duration) bool {
	const want = `a duration is a string such as "90s", "2m" or "12h"`
	text, ok := v.(string)
	if !ok {
		return d.fail(at, "must be a duration, not "+typeName(v), want)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return d.fail(at, fmt.Sprintf("%q is no duration", shorten(text)), want)
	}
	*dst = parsed
	return true
}

func (d *decoder) scalar(v any, at place, dst reflect.Value) bool {
	switch dst.Kind() {
	case reflect.String:
		text, ok := v.(string)
		if !ok {
			return d.mismatch(at, "a string", v)
		}
		dst.SetString(text)
	case reflect.Bool:
		b, ok := v.(bool)
		if !ok {
			return d.mismatch(at, "true or false", v)
		}
		dst.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := v.(int64)
		if !ok {
			return d.mismatch(at, "an integer", v)
		}
		if dst.OverflowInt(n) {
			return d.fail(at, fmt.Sprintf("%d is out of range", n), "")
		}
		dst.SetInt(n)
	default:
		panic(fmt.Sprintf("config: can't decode into %s at %s", dst.Type(), at.key))
	}
	return true
}

func (d *decoder) array(v any, m *mark, at place, dst reflect.Value) bool {
	entries := reflect.ValueOf(v)
	if entries.Kind() != reflect.Slice { // an array is []any, an array of tables []map[string]any
		if _, ok := v.(map[string]any); ok {
			return d.fail(at, "must be a list, not a table", "a table in a list is written [["+at.key+"]]")
		}
		want := "a list"
		if dst.Type() == reflect.TypeFor[[]string]() || dst.Type() == reflect.TypeFor[[]field[string]]() {
			want = `a list of strings such as ["a", "b"]`
		}
		return d.mismatch(at, want, v)
	}
	dst.Set(reflect.MakeSlice(dst.Type(), entries.Len(), entries.Len()))
	for i := range entries.Len() {
		d.value(entries.Index(i).Interface(), m.item(i), at, dst.Index(i))
	}
	return true
}

// named stores a table whose keys are names that the administrator chose.
func (d *decoder) named(v any, m *mark, at place, dst reflect.Value) bool {
	table, ok := v.(map[string]any)
	if !ok {
		return d.mismatch(at, "a table", v)
	}
	if nameless(table, fieldTags(dst.Type().Elem())) {
		return d.fail(at, "has no name", fmt.Sprintf("write [%s.NAME], with a name of your choice", at.key))
	}
	dst.Set(reflect.MakeMapWithSize(dst.Type(), len(table)))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		entry := reflect.New(dst.Type().Elem()).Elem()
		d.value(table[name], m.key(name), at.below(name), entry)
		dst.SetMapIndex(reflect.ValueOf(name), entry)
	}
	return true
}

// nameless reports whether keys stand where names of tables belong.
func nameless(table map[string]any, keys []string) bool {
	found := false
	for name, v := range table {
		switch v.(type) {
		case map[string]any, []map[string]any:
			return false
		}
		found = found || slices.Contains(keys, name)
	}
	return found
}

// table stores a table in a struct by its tags. Unknown keys are noted, or kept when the struct has a rest.
func (d *decoder) table(table map[string]any, m *mark, at place, dst reflect.Value) {
	known := append(tags(dst.Type()), d.known...)
	d.known = nil
	used := make(map[string]bool, len(table))
	var left *rest
	for i := range dst.NumField() {
		if !dst.Type().Field(i).IsExported() {
			continue
		}
		if r, ok := dst.Field(i).Addr().Interface().(*rest); ok {
			left = r
			continue
		}
		name := dst.Type().Field(i).Tag.Get("toml")
		if v, ok := table[name]; ok && name != "" {
			used[name] = true
			if file, ok := v.(string); ok && file != "" && dst.Type().Field(i).Tag.Get("reads") == "file" {
				if !filepath.IsAbs(file) {
					file = filepath.Join(filepath.Dir(d.file), file)
				}
				d.sources.note(file, false)
			}
			d.value(v, m.key(name), at.below(name), dst.Field(i))
		}
	}
	if left != nil {
		*left = rest{values: make(map[string]any), marks: m, at: at}
		left.at.line = m.line
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		switch {
		case used[name]:
		case left != nil:
			left.values[name] = table[name]
		default:
			d.unknown(name, m.key(name).line, at, known)
		}
	}
}

// unknown tells of a key that the table at a place doesn't know, and where it belongs or which one is meant.
func (d *decoder) unknown(name string, line int, table place, known []string) {
	at := table.below(name)
	at.line = line
	p := at.problem("unknown key", "")
	if near := suggest.Nearest(name, known); near != "" {
		p.Hint, p.meant = fmt.Sprintf("did you mean %s?", near), table.below(near).key
	}
	homes := homesOf(name)
	if slices.Contains(d.outputs, name) {
		homes = append(homes, "[[output]]")
	}
	if len(homes) > 0 {
		p.Hint, p.meant = misplaced(name, table, homes), ""
		if homes[0] == "" {
			p.meant = name
		}
	}
	d.problems = append(d.problems, p)
}

// misplaced says where a key belongs. In TOML all that follows the header of a table is a key of that table.
func misplaced(name string, table place, homes []string) string {
	if homes[0] == "" {
		header := "[" + table.key + "]"
		if f, ok := fieldOf(reflect.TypeFor[rawConfig](), table.key); ok && f.Type.Kind() == reflect.Slice {
			header = "[" + header + "]"
		}
		return fmt.Sprintf("%s belongs above the first [table] of a file: below %s it is a key of that table", name, header)
	}
	return name + " belongs below " + strings.Join(homes, " or ")
}

// homesOf returns the tables that know a key, as their headers are written; "" is the top of a file, and comes first.
func homesOf(name string) (homes []string) {
	var walk func(t reflect.Type, header string, array bool)
	walk = func(t reflect.Type, header string, array bool) {
		switch {
		case t.Kind() == reflect.Map:
			walk(t.Elem(), header+".NAME", array)
		case t.Kind() == reflect.Slice:
			walk(t.Elem(), header, true)
		case t.Kind() == reflect.Struct && t.NumField() > 0 && t.Field(0).Name == "Value": // a field
			walk(t.Field(0).Type, header, array)
		case t.Kind() == reflect.Struct:
			for i := range t.NumField() {
				tag := t.Field(i).Tag.Get("toml")
				if tag == name && header == "" {
					homes = append(homes, "")
				} else if tag == name && array {
					homes = append(homes, "[["+header+"]]")
				} else if tag == name {
					homes = append(homes, "["+header+"]")
				}
				if tag != "" {
					walk(t.Field(i).Type, strings.TrimPrefix(header+"."+tag, "."), array)
				}
			}
		}
	}
	walk(reflect.TypeFor[rawConfig](), "", false)
	slices.Sort(homes)
	return slices.Compact(homes)
}

// fieldOf returns the field of a struct that a key is for.
func fieldOf(t reflect.Type, key string) (reflect.StructField, bool) {
	return t.FieldByNameFunc(func(name string) bool {
		f, _ := t.FieldByName(name)
		return f.Tag.Get("toml") == key
	})
}

// fieldTags returns the keys that the struct in a field knows; none when the type is no field of a struct, as for a secret.
func fieldTags(t reflect.Type) []string {
	if t.Kind() != reflect.Struct || t.NumField() == 0 || t.Field(0).Type.Kind() != reflect.Struct {
		return nil
	}
	return tags(t.Field(0).Type)
}

// tags returns the keys that a struct knows.
func tags(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("toml"); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "a list"
}
