package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChart(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	b := builder{root: root, source: source{version: "v1.2.3-rc.1+dirty", time: when}}
	for _, name := range chartNames {
		file, first, err := b.chart(name)
		if err != nil {
			t.Fatal(err)
		}
		_, second, err := b.chart(name)
		if err != nil {
			t.Fatal(err)
		}
		if file != name+"-1.2.3-rc.1+dirty.tgz" || !bytes.Equal(first, second) {
			t.Errorf("%s: two of the same differ", file)
		}
		names := listTar(t, first)
		if !strings.HasPrefix(names, name+"/Chart.yaml -rw-r--r-- 1700000000\n") || !strings.Contains(names, "\n"+name+"/templates/_helpers.tpl ") || !strings.Contains(names, "\n"+name+"/values.schema.json ") {
			t.Errorf("%s has\n%s", file, names)
		}
		text, err := os.ReadFile(filepath.Join(root, "deploy", "charts", name, chartFile))
		if err != nil {
			t.Fatal(err)
		}
		if text, err = b.describeChart(text); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\nversion: 1.2.3-rc.1+dirty\n") || !strings.Contains(string(text), "\nappVersion: v1.2.3-rc.1-dirty\n") {
			t.Errorf("%s", text)
		}
	}
	if _, err := b.describeChart([]byte("version: 1\n")); err == nil || !strings.Contains(err.Error(), `has 0 lines "appVersion:"`) {
		t.Errorf("without an appVersion: %v", err)
	}
	if _, _, err := b.chart("other"); err == nil {
		t.Error("a chart that is not there is packed")
	}
}
