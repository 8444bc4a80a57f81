package main

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOptions(t *testing.T) {
	o, err := parse([]string{"--quick", "--rounds", "7", "--only", "^download", "--direct", "--out", "r.json"})
	if err != nil {
		t.Fatal(err)
	}
	if s := o.scale(); s.Rounds != 7 || s.Window.Seconds() > 1 || len(o.tunnels) != 3 || o.base() != "reference" || o.out != "r.json" {
		t.Errorf("%+v, scale %+v", o, s)
	}
	if o, err = parse(nil); err != nil || o.scale().Rounds != 5 || len(o.tunnels) != 2 {
		t.Errorf("without flags: %+v %v", o, err)
	}
	if o, err = parse([]string{"--netem"}); err != nil || o.base() != "direct" || o.scale().ForLines(o.rounds).Rounds != 1 {
		t.Errorf("--netem: %+v %v", o, err)
	}
	for args, want := range map[string]string{
		"--only (":              "--only",
		"--rounds -1":           "--rounds",
		"--profiles /nowhere":   "--profiles",
		"--tunnel /nowhere":     "tunnel file",
		"--kube --netem":        "--kube, --netem",
		"download_1":            "unexpected argument",
		"--rounds -1 --only (x": "--only",
	} {
		if _, err := parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
