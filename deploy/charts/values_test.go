package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// read returns a file of a chart.
func read(t *testing.T, chart, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chart, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// valuesOf returns the values of a chart.
func valuesOf(t *testing.T, chart string) []Value {
	t.Helper()
	values, err := ParseValues(read(t, chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestGenerated(t *testing.T) {
	for _, chart := range []string{Hub, Agent} {
		values := valuesOf(t, chart)
		schema, err := Schema(chart, values)
		if err != nil {
			t.Fatal(err)
		}
		if string(schema) != string(read(t, chart, "values.schema.json")) {
			t.Errorf("%s: values.schema.json is not what values.yaml says: go generate ./deploy/charts", chart)
		}
		readme := read(t, chart, "README.md")
		want, err := WithTable(readme, values)
		if err != nil {
			t.Fatal(err)
		}
		if string(want) != string(readme) {
			t.Errorf("%s: README.md is not what values.yaml says: go generate ./deploy/charts", chart)
		}
	}
}

func TestParseValues(t *testing.T) {
	values, err := ParseValues([]byte("# About the file.\n\n# A group.\na:\n  # One,\n  # long.\n  # @schema {\"minimum\": 1}\n  b: 3\n# A map.\n# @leaf\nc: {d: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	leaves := Leaves(values)
	if len(leaves) != 2 || leaves[0].Path != "a.b" || leaves[0].Text != "One, long." || leaves[0].Default != "3" || leaves[1].Default != `{"d":1}` || values[0].Text != "A group." {
		t.Errorf("%+v", values)
	}
	for name, text := range map[string]string{
		"no comment": "a: 1\n", "no comment inside": "# A.\na: {b: 1}\n", "a type of no schema": "# A.\na: null\n",
		"a broken schema": "# A.\n# @schema {\na: 1\n", "no mapping": "a\n", "no YAML": "a: [\n",
	} {
		if _, err := ParseValues([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "values.yaml: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
