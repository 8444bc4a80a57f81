package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type settings struct {
	Name  string            `json:"name,omitempty"`
	Wait  metav1.Duration   `json:"wait,omitzero"`
	Tags  []string          `json:"tags,omitempty"`
	Inner *inner            `json:"inner,omitempty"`
	Label map[string]string `json:"label,omitempty"`
	Out   func()            `json:"-"`
}

type inner struct {
	Use bool `json:"use,omitempty"`
}

func TestLoadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	for _, c := range []struct {
		name, text string
		says       []string
	}{
		{"unknown", "nam: x\n", []string{"nam: there is no such field"}},
		{"unknown inside", "inner: {using: true}\n", []string{"inner.using: there is no such field"}},
		{"not for files", "Out: x\n", []string{"Out: there is no such field"}},
		{"types", "name: [x]\ntags: x\ninner: {use: 1}\n", []string{"name: want string, got array", "tags: want []string, got string", "inner.use: want bool, got number"}},
		{"decoder of its own", "wait: soon\n", []string{"wait: ", `"soon"`}},
		{"twice", "name: a\nname: b\n", []string{"not valid YAML: line 2", "already set"}},
		{"broken", "name: [\n", []string{"not valid YAML: line "}},
		{"scalar", "name\n", []string{"want a mapping"}},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var s settings
		err := LoadConfig([]string{"--config", file}, &s)
		for _, part := range append(c.says, "--config "+file+": ") {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", c.name, err, part)
			}
		}
	}
	if err := os.WriteFile(file, []byte("name: x\nwait: 90s\ntags: [a, b]\ninner: {use: true}\nlabel: {k: v}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--config", file}, {"--x", "--config=" + file}} {
		var s settings
		if err := LoadConfig(args, &s); err != nil || s.Name != "x" || s.Wait.Duration != 90*time.Second || len(s.Tags) != 2 || !s.Inner.Use || s.Label["k"] != "v" {
			t.Errorf("%v: %+v, %v", args, s, err)
		}
	}
	for _, text := range []string{"", "# nothing\n", "{}\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := LoadConfig([]string{"--config", file}, &settings{}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, args := range [][]string{nil, {"--config"}, {"--", "--config", "no"}, {"--state", "x"}} {
		if err := LoadConfig(args, &settings{}); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}
