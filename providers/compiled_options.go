package providers

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"autocertd/internal/secret"
)

// decodeTagged decodes the options into module, a pointer to a struct whose fields have json tags, and returns the
// strings among them by key. The configuration decodes into structs with toml tags, so such a struct is made from the
// other one: its keys stay known, with mistakes told by line, and its strings may be secrets.
func decodeTagged(opts Options, module any) (map[string]secret.Secret, error) {
	fields := taggedFields(reflect.ValueOf(module).Elem())
	shape := make([]reflect.StructField, len(fields))
	for i, f := range fields {
		shape[i] = reflect.StructField{
			Name: fmt.Sprintf("Field%d", i),
			Type: f.decoded(),
			Tag:  reflect.StructTag(fmt.Sprintf("toml:%q", f.key)),
		}
	}
	decoded := reflect.New(reflect.StructOf(shape))
	if err := opts.Decode(decoded.Interface()); err != nil {
		return nil, err
	}
	if decoded.Elem().IsZero() {
		return nil, fmt.Errorf("no option is set; known are %s", keys(fields))
	}
	secrets := make(map[string]secret.Secret)
	var errs []error
	for i, f := range fields {
		switch v := decoded.Elem().Field(i).Interface().(type) {
		case secret.Secret:
			f.value.SetString(v.Reveal())
			secrets[f.key] = v
		case time.Duration:
			f.value.SetInt(int64(v))
		case anyOption:
			errs = append(errs, f.set(v))
		}
	}
	return secrets, errors.Join(errs...)
}

// taggedField is a field of a module's struct and its key.
type taggedField struct {
	key   string
	value reflect.Value
}

// taggedFields returns the exported fields that have a key.
func taggedFields(module reflect.Value) []taggedField {
	var fields []taggedField
	for i := range module.NumField() {
		field := module.Type().Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.IsExported() && key != "" && key != "-" {
			fields = append(fields, taggedField{key: key, value: module.Field(i)})
		}
	}
	return fields
}

func keys(fields []taggedField) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	return strings.Join(names, ", ")
}

// decoded is the type that the configuration decodes into.
func (f taggedField) decoded() reflect.Type {
	switch {
	case f.value.Kind() == reflect.String:
		return reflect.TypeFor[secret.Secret]()
	case f.value.Type() == reflect.TypeFor[time.Duration]():
		return f.value.Type()
	}
	return reflect.TypeFor[anyOption]()
}

// set brings the option into the field by way of JSON, which the field is made for.
func (f taggedField) set(v anyOption) error {
	if v.value == nil {
		return nil
	}
	text, err := json.Marshal(v.value)
	if err == nil {
		err = json.Unmarshal(text, f.value.Addr().Interface())
	}
	if typeErr, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return at(f.key, fmt.Errorf("must be of type %s, not a %s", f.value.Type(), typeErr.Value))
	}
	if err != nil {
		return at(f.key, fmt.Errorf("doesn't fit type %s", f.value.Type()))
	}
	return nil
}

// anyOption is a value of the configuration that is neither a string nor a duration.
type anyOption struct{ value any }

// UnmarshalTOML keeps the decoded value.
func (o *anyOption) UnmarshalTOML(v any) error {
	o.value = v
	return nil
}
