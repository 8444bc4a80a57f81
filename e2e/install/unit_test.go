package install

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// unit is a file of systemd.syntax(7): sections, and in each the values of a key
// in their order.
type unit map[string]map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	found := unit{}
	section := ""
	for line := range strings.Lines(read(t, deployed(t, name))) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			found[section] = map[string][]string{}
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				t.Fatalf("%s: %q is no setting", name, line)
			}
			found[section][key] = append(found[section][key], value)
		}
	}
	return found
}

// service returns the one value of a setting.
func (u unit) service(t *testing.T, key string) string {
	t.Helper()
	values := u["Service"][key]
	if len(values) != 1 {
		t.Fatalf("%s: %d values, want one", key, len(values))
	}
	return values[0]
}

// environmentFile reads one as systemd.exec(5) has it, without quotes.
func environmentFile(t *testing.T, path string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(read(t, path)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.ContainsAny(line, `"'\`) {
			t.Fatalf("%s: %q: want NAME=value without quotes", path, line)
		}
		found[key] = value
	}
	return found
}

// commandLine is that of ExecStart: a word $NAME is replaced by the words of the
// variable, by none where it is not set (systemd.service(5)).
func (u unit) commandLine(t *testing.T, environment map[string]string) []string {
	t.Helper()
	var args []string
	for word := range strings.FieldsSeq(u.service(t, "ExecStart")) {
		if name, ok := strings.CutPrefix(word, "$"); ok {
			args = append(args, strings.Fields(environment[name])...)
			continue
		}
		if strings.ContainsAny(word, "${}%\"'\\;") {
			t.Fatalf("ExecStart: this test does not know what systemd makes of %q", word)
		}
		args = append(args, word)
	}
	return args
}

// deployed is the path of a file of deploy/systemd.
func deployed(t *testing.T, name string) string {
	t.Helper()
	root, err := testbed.Root()
	must(t, err)
	return filepath.Join(root, "deploy", "systemd", name)
}

// machine is a root as docs/install.md makes one for a VM: the program, its
// configuration, and what systemd makes.
type machine struct {
	jail jail
	// etc and state are the folders on this side.
	etc, state string
}

// newMachine installs a program and the configuration that comes with it, whose
// text edit may change.
func newMachine(t *testing.T, program string, edit func(file, text string) string) machine {
	t.Helper()
	u := readUnit(t, program+".service")
	kind := strings.TrimPrefix(program, "culvert-") // hub or agent
	dir := t.TempDir()
	m := machine{etc: folder(t, filepath.Join(dir, "etc"), 0o750, 0, readers)}
	root := folder(t, filepath.Join(dir, "root"), 0o755, 0, 0)
	folder(t, filepath.Join(root, "usr", "local", "bin"), 0o755, 0, 0)
	binary := filepath.Join(root, "usr", "local", "bin", program)
	must(t, os.Link(filepath.Join(unpack(t, program), program), binary))
	for _, name := range []string{kind + ".yaml", kind + ".env"} {
		must(t, os.WriteFile(filepath.Join(m.etc, name), []byte(edit(name, read(t, deployed(t, name)))), 0o644))
		must(t, os.Chmod(filepath.Join(m.etc, name), 0o644))
	}
	m.jail = jail{Root: root, Mounts: map[string]string{"/etc/culvert": m.etc}, Writable: map[string]string{}, Groups: []int{readers}}
	for setting, below := range map[string]string{"StateDirectory": "/var/lib/", "LogsDirectory": "/var/log/"} {
		for _, name := range u["Service"][setting] {
			made := folder(t, filepath.Join(dir, setting), 0o700, nonroot, nonroot)
			m.jail.Writable[below+name] = made
			if setting == "StateDirectory" {
				m.state = made
			}
		}
	}
	file := u.service(t, "EnvironmentFile")
	environment := environmentFile(t, filepath.Join(m.etc, strings.TrimPrefix(file, "-/etc/culvert/")))
	m.jail.Args = u.commandLine(t, environment)
	for key, value := range environment {
		m.jail.Env = append(m.jail.Env, key+"="+value)
	}
	slices.Sort(m.jail.Env)
	m.jail.Capabilities = capabilities(t, u)
	m.jail.Syscalls = syscalls(t, u)
	return m
}

// capabilities are those that the unit gives, which are all that it lets be had.
func capabilities(t *testing.T, u unit) []int {
	t.Helper()
	given, bound := strings.Join(u["Service"]["AmbientCapabilities"], " "), u.service(t, "CapabilityBoundingSet")
	if given != bound {
		t.Fatalf("the unit gives %q, and lets %q be had", given, bound)
	}
	var found []int
	for name := range strings.FieldsSeq(given) {
		number, ok := map[string]int{"CAP_NET_BIND_SERVICE": 10}[name]
		if !ok {
			t.Fatalf("%s: why does it need that?", name)
		}
		found = append(found, number)
	}
	return found
}

// syscalls are those that the unit allows, by the lists that systemd has for the
// names of groups: the first line of the setting allows, one with "~" takes away
// (systemd.exec(5)).
func syscalls(t *testing.T, u unit) []string {
	t.Helper()
	if errno := u.service(t, "SystemCallErrorNumber"); errno != "EPERM" {
		t.Fatalf("SystemCallErrorNumber is %s", errno)
	}
	allowed := map[string]bool{}
	for i, value := range u["Service"]["SystemCallFilter"] {
		names, takesAway := strings.CutPrefix(value, "~")
		if takesAway != (i > 0) {
			t.Fatalf("SystemCallFilter=%s: this test does not know what systemd makes of it", value)
		}
		for name := range strings.FieldsSeq(names) {
			for _, call := range group(t, name) {
				if allowed[call] = true; takesAway {
					delete(allowed, call)
				}
			}
		}
	}
	if len(allowed) < 100 {
		t.Fatalf("the unit allows %d system calls", len(allowed))
	}
	return slices.Sorted(maps.Keys(allowed))
}

// group returns what systemd has in a group of system calls.
func group(t *testing.T, name string) []string {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "syscall-filter", name).Output()
	must(t, err)
	var found []string
	for line := range strings.Lines(string(out)) {
		if call := strings.TrimSpace(line); call != "" && call != name && call[0] != '#' {
			found = append(found, group(t, call)...)
		}
	}
	return found
}

// replace is an edit of one file that must change something.
func replace(t *testing.T, pairs ...string) func(file, text string) string {
	t.Helper()
	return func(file, text string) string {
		for i := 0; i < len(pairs); i += 3 {
			if pairs[i] != file {
				continue
			}
			if !strings.Contains(text, pairs[i+1]) {
				t.Fatal(fmt.Errorf("%s has no %q", file, pairs[i+1]))
			}
			text = strings.ReplaceAll(text, pairs[i+1], pairs[i+2])
		}
		return text
	}
}
