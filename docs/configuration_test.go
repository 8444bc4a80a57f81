package docs_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/server"
)

// sections splits a document at its headings of the second level.
func sections(text string) map[string]string {
	found := map[string]string{}
	for _, part := range strings.Split("\n"+text, "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		found[strings.Trim(title, "` ")] = body
	}
	return found
}

// cells returns the code in the nth cell of each row of the tables in text.
func cells(text string, n int) []string {
	var found []string
	for line := range strings.Lines(text) {
		row := strings.Split(line, "|")
		if len(row) < n+2 {
			continue
		}
		if code := strings.TrimSpace(row[n+1]); strings.HasPrefix(code, "`") && strings.HasSuffix(code, "`") {
			found = append(found, strings.Trim(code, "`"))
		}
	}
	return found
}

// same reports what one list has and the other has not.
func same(t *testing.T, what string, documented, existing []string) {
	t.Helper()
	for _, name := range documented {
		if !slices.Contains(existing, name) {
			t.Errorf("%s: %s is documented and does not exist", what, name)
		}
	}
	for _, name := range existing {
		if !slices.Contains(documented, name) {
			t.Errorf("%s: %s exists and is not documented", what, name)
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(documented)))) != len(documented) {
		t.Errorf("%s: something is documented twice: %v", what, documented)
	}
}

// fieldsOf returns the names of a configuration's fields in its file, with those
// of a part as part.field, and those of a list's elements as list[].field.
func fieldsOf(t reflect.Type, prefix string) []string {
	var names []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		of := field.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct && strings.HasPrefix(of.PkgPath(), "github.com/culvertdev/culvert/") {
			names = append(names, fieldsOf(of, prefix+name+".")...)
			continue
		}
		names = append(names, prefix+name)
		if of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct {
			names = append(names, fieldsOf(of.Elem(), prefix+name+"[].")...)
		}
	}
	return names
}

func TestConfiguration(t *testing.T) {
	found := commands(t)
	documented := sections(read(t, "configuration.md"))
	t.Run("every flag of every command is documented, and no other", func(t *testing.T) {
		for name, c := range found {
			if strings.HasPrefix(name+" ", "culvert ") {
				continue // cli.md has those, see TestReference
			}
			var flags []string
			for _, flag := range c.flags {
				if flag != "help" && flag != "version" {
					flags = append(flags, "--"+flag)
				}
			}
			if len(flags) > 0 || documented[name] != "" {
				same(t, name, cells(documented[name], 0), flags)
			}
		}
		for title := range documented {
			if _, ok := found[title]; strings.HasPrefix(title, "culvert") && (!ok || strings.HasPrefix(title+" ", "culvert ")) {
				t.Errorf("%s is documented and is no command, or one of cli.md", title)
			}
		}
	})
	t.Run("every field of a configuration file is documented, and no other", func(t *testing.T) {
		same(t, "culvert-hub", cells(documented["culvert-hub"], 1), fieldsOf(reflect.TypeFor[server.Config](), ""))
		same(t, "culvert-agent", cells(documented["culvert-agent"], 1), fieldsOf(reflect.TypeFor[agent.Config](), ""))
	})
	t.Run("every default that --help gives in quotes is documented", func(t *testing.T) {
		for title, want := range map[string][]string{
			"culvert-hub":   {server.DefaultListen, server.DefaultTrustDomain, server.DefaultDrainTimeout.String()},
			"culvert-agent": {agent.DefaultDrainTimeout.String()},
		} {
			for _, value := range want {
				if !slices.Contains(cells(documented[title], 2), value) {
					t.Errorf("%s: the default %s is not documented", title, value)
				}
			}
		}
	})
}
