package charts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Value is one value of a chart, or a group of them.
type Value struct {
	// Path is its place, such as service.type.
	Path string
	// Text documents it.
	Text string
	// Default is its text in YAML, on one line; empty for a group.
	Default string
	// Values are those of a group.
	Values []Value

	kind  string         // of JSON
	extra map[string]any // what its @schema says
}

// Leaves returns the values that are no groups.
func Leaves(values []Value) []Value {
	var all []Value
	for _, v := range values {
		if v.Default != "" {
			all = append(all, v)
		}
		all = append(all, Leaves(v.Values)...)
	}
	return all
}

// The marks in comments: of a schema that adds to what the default tells, and of a
// map that is one value.
const (
	markSchema = "@schema "
	markLeaf   = "@leaf"
)

// ParseValues reads a values.yaml with its comments. A value without a comment is an
// error.
func ParseValues(text []byte) ([]Value, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("values.yaml: want a mapping")
	}
	values, err := parseGroup(document.Content[0], "")
	if err != nil {
		return nil, fmt.Errorf("values.yaml: %w", err)
	}
	return values, nil
}

func parseGroup(node *yaml.Node, prefix string) ([]Value, error) {
	var values []Value
	for i := 0; i+1 < len(node.Content); i += 2 {
		v, err := parseValue(node.Content[i], node.Content[i+1], prefix)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func parseValue(key, node *yaml.Node, prefix string) (Value, error) {
	v := Value{Path: prefix + key.Value}
	leaf := false
	var words []string
	for line := range strings.Lines(key.HeadComment) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		if schema, ok := strings.CutPrefix(line, markSchema); ok {
			if err := json.Unmarshal([]byte(schema), &v.extra); err != nil {
				return v, fmt.Errorf("%s: @schema: %w", v.Path, err)
			}
			continue
		}
		switch line {
		case markLeaf:
			leaf = true
		case "":
			words = nil // what is apart from it is about the file
		default:
			words = append(words, line)
		}
	}
	v.Text = strings.Join(words, " ")
	if v.Text == "" {
		return v, fmt.Errorf("%s: has no comment", v.Path)
	}
	if node.Kind == yaml.MappingNode && len(node.Content) > 0 && !leaf {
		var err error
		v.kind = "object"
		v.Values, err = parseGroup(node, v.Path+".")
		return v, err
	}
	return v, v.setDefault(node)
}

// setDefault takes kind and text of a default value.
func (v *Value) setDefault(node *yaml.Node) error {
	kinds := map[string]string{"!!str": "string", "!!bool": "boolean", "!!int": "integer", "!!map": "object", "!!seq": "array"}
	v.kind = kinds[node.Tag]
	if v.kind == "" {
		return fmt.Errorf("%s: the default's type %s is none that a schema tells", v.Path, node.Tag)
	}
	var content any
	if err := node.Decode(&content); err != nil {
		return fmt.Errorf("%s: %w", v.Path, err)
	}
	text, err := json.Marshal(content)
	v.Default = string(text)
	return err
}

// Schema is the JSON schema of a chart's values. Keys that are not there are refused,
// at the top level unless there is a block frps.frps, which comes in files with much
// else in them.
func Schema(title string, values []Value) ([]byte, error) {
	top := group(values)
	top["$schema"] = "http://json-schema.org/draft-07/schema#"
	top["title"] = title
	properties, ok := top["properties"].(map[string]any)
	if !ok {
		return nil, errors.New("schema: no properties")
	}
	properties["global"] = map[string]any{"type": "object", "description": "What Helm hands to all charts of a release."}
	if _, ok := properties["frps"]; ok {
		delete(top, "additionalProperties")
		top["if"] = map[string]any{"properties": map[string]any{"frps": map[string]any{"required": []string{"frps"}}}}
		top["then"] = true
		top["else"] = map[string]any{"propertyNames": map[string]any{"enum": slices.Sorted(maps.Keys(properties))}}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(top); err != nil {
		return nil, fmt.Errorf("schema: %w", err)
	}
	return out.Bytes(), nil
}

func group(values []Value) map[string]any {
	properties := map[string]any{}
	for _, v := range values {
		name := v.Path[strings.LastIndexByte(v.Path, '.')+1:]
		one := map[string]any{"type": v.kind}
		if len(v.Values) > 0 {
			one = group(v.Values)
		}
		one["description"] = v.Text
		maps.Copy(one, v.extra)
		properties[name] = one
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

// The lines of a README between which its table is.
const (
	tableBegin = "<!-- values: made from values.yaml by make generate -->"
	tableEnd   = "<!-- end of values -->"
)

// WithTable returns a README with the table of values in its place.
func WithTable(readme []byte, values []Value) ([]byte, error) {
	before, rest, ok := strings.Cut(string(readme), tableBegin+"\n")
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return nil, fmt.Errorf("README.md: want the lines %q and %q", tableBegin, tableEnd)
	}
	var table strings.Builder
	table.WriteString(before + tableBegin + "\n\n| value | default | meaning |\n|---|---|---|\n")
	rows(&table, values)
	table.WriteString("\n" + tableEnd + after)
	return []byte(table.String()), nil
}

// rows has one for each group, too, which says what its values are about.
func rows(table *strings.Builder, values []Value) {
	for _, v := range values {
		written := ""
		if v.Default != "" {
			written = "`" + cell(v.Default) + "`"
		}
		fmt.Fprintf(table, "| `%s` | %s | %s |\n", v.Path, written, cell(v.Text))
		rows(table, v.Values)
	}
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
