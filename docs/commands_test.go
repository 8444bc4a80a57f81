package docs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A command is what --help says of it.
type command struct {
	help        string
	flags       []string
	subcommands []string
}

var (
	flagLine       = regexp.MustCompile(`(?m)^ +(?:-[a-z], )?--([a-z0-9-]+)`)
	subcommandLine = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) {2,}\S`)
)

// commands builds the binaries and returns all their commands, by their full
// name, with those that cobra adds left out.
func commands(t *testing.T) map[string]command {
	t.Helper()
	built.Do(func() { built.commands, built.err = buildCommands(t.Context(), t.TempDir()) })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.commands
}

var built struct {
	sync.Once

	commands  map[string]command
	exitCodes string // what culvert help exit-codes prints
	err       error
}

func buildCommands(ctx context.Context, dir string) (map[string]command, error) {
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build ./cmd/...: %w\n%s", err, out)
	}
	found := map[string]command{}
	binaries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, b := range binaries {
		if err := describe(ctx, filepath.Join(dir, b.Name()), []string{strings.TrimSuffix(b.Name(), ".exe")}, found); err != nil {
			return nil, err
		}
	}
	codes, err := exec.CommandContext(ctx, filepath.Join(dir, "culvert"), "help", "exit-codes").Output()
	if err != nil {
		return nil, fmt.Errorf("culvert help exit-codes: %w", err)
	}
	built.exitCodes = string(codes)
	return found, nil
}

// describe adds a command and those below it to found.
func describe(ctx context.Context, binary string, name []string, found map[string]command) error {
	out, err := exec.CommandContext(ctx, binary, append(slices.Clone(name[1:]), "--help")...).Output()
	if err != nil {
		return fmt.Errorf("%s --help: %w", strings.Join(name, " "), err)
	}
	c := command{help: string(out)}
	for part := range strings.SplitSeq(string(out), "\n\n") {
		switch {
		case strings.HasPrefix(part, "Flags:"):
			for _, m := range flagLine.FindAllStringSubmatch(part, -1) {
				c.flags = append(c.flags, m[1])
			}
		case strings.HasPrefix(part, "Available Commands:"):
			for _, m := range subcommandLine.FindAllStringSubmatch(part, -1) {
				if m[1] != "help" && m[1] != "completion" {
					c.subcommands = append(c.subcommands, m[1])
				}
			}
		}
	}
	found[strings.Join(name, " ")] = c
	for _, sub := range c.subcommands {
		if err := describe(ctx, binary, append(slices.Clone(name), sub), found); err != nil {
			return err
		}
	}
	return nil
}

func TestCommandLines(t *testing.T) {
	found := commands(t)
	makefile := read(t, filepath.Join(root, "Makefile"))
	lines := 0
	for _, path := range documents(t) {
		if filepath.Base(path) == "features.md" {
			continue // promises, which name commands that are to come
		}
		t.Run("every command line uses what exists: "+filepath.Base(path), func(t *testing.T) {
			for _, line := range commandLines(read(t, path)) {
				lines++
				if err := checkLine(line, found, makefile); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		})
	}
	t.Run("command lines were found", func(t *testing.T) {
		if lines < 20 {
			t.Errorf("%d lines: the fences are not read", lines)
		}
	})
	t.Run("a wrong line is noticed", func(t *testing.T) {
		for _, line := range []string{
			"culvert-hub --no-such-flag", "culvert pki agents", "culvert dev --out x", "make nothing", "make demo TWICE=1",
		} {
			if checkLine(line, found, makefile) == nil {
				t.Errorf("%s is accepted", line)
			}
		}
	})
}

var inline = regexp.MustCompile("`([^`\n]+)`")

// commandLines returns the commands in fences for a shell and in inline code,
// one each, without what only a shell reads.
func commandLines(text string) []string {
	var source bytes.Buffer
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == "" || m[1] == "sh" {
			source.WriteString(strings.ReplaceAll(m[2], "\\\n", " "))
		}
	}
	for _, m := range inline.FindAllStringSubmatch(withoutFences(text), -1) {
		source.WriteString(m[1] + "\n")
	}
	var found []string
	for line := range strings.Lines(source.String()) {
		line, _, _ = strings.Cut(line, " #")
		line = regexp.MustCompile(`\s+(2?>|&( |$)).*$`).ReplaceAllString(strings.TrimSpace(line), "")
		for _, part := range regexp.MustCompile(`&&|[;|(]`).Split(line, -1) {
			part = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(part), "$ "), "bin/")
			if regexp.MustCompile(`^(culvert|culvert-hub|culvert-agent|make)( |$)`).MatchString(part) {
				found = append(found, part)
			}
		}
	}
	return found
}

// checkLine reports what a command line has that its program has not.
func checkLine(line string, found map[string]command, makefile string) error {
	words := strings.Fields(line)
	if words[0] == "make" {
		return checkMake(words[1:], makefile)
	}
	name := words[0]
	for i, word := range words[1:] {
		if word == "--" {
			break // what follows is another program's
		}
		c := found[name]
		if before := words[i]; strings.HasPrefix(before, "-") && !strings.Contains(before, "=") && !strings.HasPrefix(word, "-") {
			continue // the value of a flag
		}
		flag, isFlag := strings.CutPrefix(word, "--")
		flag, _, _ = strings.Cut(flag, "=")
		switch {
		case isFlag && !slices.Contains(c.flags, flag):
			return fmt.Errorf("%s has no flag --%s", name, flag)
		case !isFlag && slices.Contains(c.subcommands, word):
			name += " " + word
		case !isFlag && name == "culvert" && (word == "completion" || word == "help"):
			return nil // cobra's own
		case !isFlag && len(c.subcommands) > 0:
			return fmt.Errorf("%s has no command %s", name, word)
		}
	}
	return nil
}

func checkMake(words []string, makefile string) error {
	for _, word := range words {
		want := `(?m)^` + regexp.QuoteMeta(word) + `:.* ## `
		if variable, _, ok := strings.Cut(word, "="); ok {
			want = `(?m)^` + regexp.QuoteMeta(variable) + ` \?=`
		}
		if strings.Trim(word, "'") != word || !regexp.MustCompile(`^[a-zA-Z]`).MatchString(word) {
			continue // the value of a variable
		}
		if !regexp.MustCompile(want).MatchString(makefile) {
			return fmt.Errorf("the Makefile has no %s", word)
		}
	}
	return nil
}
