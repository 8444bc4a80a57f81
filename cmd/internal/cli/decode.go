package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// decode fills into, a pointer to a struct, from a YAML mapping. Every top-level
// field is decoded for itself, so that the error names each one that is wrong:
// what a type's own decoder says does not.
func decode(raw []byte, into any) error {
	converted, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return yamlError(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(converted, &fields); err != nil {
		return errors.New("want a mapping with one \"field: value\" a line")
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		one, err := json.Marshal(map[string]json.RawMessage{name: fields[name]})
		if err == nil {
			err = strict(one, reflect.New(reflect.TypeOf(into).Elem()).Interface())
		}
		if err != nil {
			problems = append(problems, fieldError(name, err))
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return strict(converted, into)
}

func strict(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// yamlError leaves out how the text is converted, on one line.
func yamlError(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:")
	return fmt.Errorf("not valid YAML: %s", strings.Join(strings.Fields(text), " "))
}

func fieldError(name string, err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: want %s, got %s", wrong.Field, wrong.Type, wrong.Value)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if field = strings.Trim(field, `"`); field != name {
			name += "." + field
		}
		return fmt.Errorf("%s: there is no such field, see --help for what there is", name)
	}
	return fmt.Errorf("%s: %w", name, err)
}
