package main

import (
	"fmt"
	"go/version"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// stages parses deploy/Dockerfile as docker does.
func stages(t *testing.T) map[string]instructions.Stage {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "..", "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed.Warnings) > 0 {
		t.Errorf("warnings: %v", parsed.Warnings)
	}
	list, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]instructions.Stage{}
	for _, stage := range list {
		found[stage.Name] = stage
	}
	return found
}

func TestDockerfile(t *testing.T) {
	found := stages(t)
	build := found["build"]
	t.Run("its Go is one without known holes", func(t *testing.T) {
		name, tag, _ := strings.Cut(build.BaseName, ":")
		text, _, _ := strings.Cut(tag, "-")
		have := "go" + text
		if name != "golang" || !version.IsValid(have) || version.Compare(have, leastGo) < 0 {
			t.Errorf("the base is %s, want golang with %s at least", build.BaseName, leastGo)
		}
	})
	commands := fmt.Sprint(text(t, build))
	t.Run("it builds as make image does", func(t *testing.T) {
		for _, part := range []string{"CGO_ENABLED=0", "-trimpath", "-buildvcs=false", "-s -w -buildid= -X " + stamp + "=$VERSION", "-mod=readonly"} {
			if !strings.Contains(commands, part) {
				t.Errorf("go build lacks %q", part)
			}
		}
		for _, program := range programs {
			if !strings.Contains(commands, "./cmd/"+program) {
				t.Errorf("%s is not built", program)
			}
		}
	})
	t.Run("its root has what that of make image has", func(t *testing.T) {
		base, err := baseEntries()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range base {
			if !strings.Contains(commands, "/root-of-image"+strings.TrimSuffix(e.name, "/")) {
				t.Errorf("%s is missing", e.name)
			}
		}
		for line := range strings.Lines(passwdContent + groupContent) {
			if !strings.Contains(commands, "'"+strings.TrimSpace(line)+"'") {
				t.Errorf("users or groups lack %q", line)
			}
		}
	})
	t.Run("its targets run the same program as the same user", func(t *testing.T) {
		base := fmt.Sprint(text(t, found["base"]))
		if found["base"].BaseName != "scratch" || !strings.Contains(base, fmt.Sprintf("USER %d:%d", nonroot, nonroot)) {
			t.Errorf("from %s: %s", found["base"].BaseName, base)
		}
		for _, program := range programs {
			stage, ok := found[program]
			if !ok || stage.BaseName != "base" {
				t.Errorf("no target %s from base", program)
				continue
			}
			lines := text(t, stage)
			want := []string{"COPY --from=build /out/" + program + " /" + program}
			for port := range ports[program] {
				want = append(want, "EXPOSE "+port)
			}
			want = append(want, fmt.Sprintf("ENTRYPOINT [%q]", "/"+program))
			if !slices.Equal(lines, want) {
				t.Errorf("%s: %q, want %q", program, lines, want)
			}
		}
	})
}

// text are the instructions of a stage as they are written.
func text(t *testing.T, stage instructions.Stage) []string {
	t.Helper()
	var lines []string
	for _, command := range stage.Commands {
		written, ok := command.(fmt.Stringer)
		if !ok {
			t.Fatalf("%T cannot be written", command)
		}
		lines = append(lines, written.String())
	}
	return lines
}
