package report

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRowsCompareMedians(t *testing.T) {
	var r Results
	for _, v := range []float64{100, 300, 200} {
		r.Add("download_1", "MiB/s", Culvert, v)
		r.Add("download_1", "MiB/s", Reference, 2*v)
	}
	r.Add("idle_agent_kib", "KiB", Culvert, 80)
	rows := r.Rows()
	if len(rows) != 3 {
		t.Fatalf("got %d rows: %+v", len(rows), rows)
	}
	c := rows[0]
	if c.Measure != "download_1" || c.Subject != Culvert || c.Median != 200 || c.Min != 100 || c.Max != 300 || c.Rounds != 3 {
		t.Errorf("culvert: %+v", c)
	}
	if c.Ratio == nil || *c.Ratio != 0.5 {
		t.Errorf("ratio to the reference: %v", c.Ratio)
	}
	if rows[1].Subject != Reference || *rows[1].Ratio != 1 {
		t.Errorf("reference: %+v", rows[1])
	}
	if rows[2].Ratio != nil {
		t.Errorf("a measure without a reference has the ratio %v", *rows[2].Ratio)
	}
}

func TestRowsOfAnotherBase(t *testing.T) {
	r := Results{Base: "direct"}
	r.Add("m", "MiB/s", "direct", 50)
	r.Add("m", "MiB/s", Culvert, 40)
	r.Add("m", "MiB/s", Reference, 10)
	if got := *r.Rows()[1].Ratio; got != 0.8 {
		t.Errorf("ratio %v, want that to direct", got)
	}
}

func TestBars(t *testing.T) {
	ratio := func(v float64) Row { return Row{Median: 1e9, Ratio: &v} }
	for title, c := range map[string]struct {
		bar        Bar
		row        Row
		met, known bool
		text       string
	}{
		"more is better, reached":  {atLeast(0.75, 1), ratio(0.75), true, true, ">= 0.75 of ref"},
		"more is better, missed":   {atLeast(0.75, 1), ratio(0.74), false, true, ">= 0.75 of ref"},
		"less is better, reached":  {atMost(1.2, 1), ratio(1.2), true, true, "<= 1.2 of ref"},
		"less is better, missed":   {atMost(1.2, 1), ratio(1.21), false, true, "<= 1.2 of ref"},
		"a value, reached":         {absolute(atMost(12, 6)), Row{Median: 11}, true, true, "<= 12"},
		"a value, missed":          {absolute(atMost(12, 6)), Row{Median: 13}, false, true, "<= 12"},
		"no reference in this run": {atMost(1.2, 1), Row{Median: 1}, false, false, "<= 1.2 of ref"},
	} {
		t.Run(title, func(t *testing.T) {
			met, known := c.bar.Met(c.row)
			if met != c.met || known != c.known {
				t.Errorf("met %v known %v, want %v %v", met, known, c.met, c.known)
			}
			if c.bar.String() != c.text {
				t.Errorf("printed %q, want %q", c.bar, c.text)
			}
		})
	}
}

func TestTableShowsEverything(t *testing.T) {
	var r Results
	r.Add("download_1", "MiB/s", Culvert, 300)
	r.Add("download_1", "MiB/s", Reference, 600)
	r.Add("integrity", UnitPass, Culvert, 1)
	r.Add("half_close", UnitPass, "other", 0)
	r.Fail("pingpong_1", "other", errors.New("it hung"))
	var out strings.Builder
	if err := WriteTable(&out, r.Rows(), r.Failures()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"download_1", "300 - 300", "MiB/s", "0.50", ">= 0.75 of ref", "NO", "pass", "fail", "FAILED pingpong_1 of other: it hung",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
	if strings.Count(out.String(), "download_1") != 1 {
		t.Errorf("the measure's name is repeated:\n%s", out.String())
	}
}

func TestJSONHasTheAgreedNames(t *testing.T) {
	var r Results
	r.Add("idle_agent_kib", "KiB", Culvert, 80)
	file := filepath.Join(t.TempDir(), "results.json")
	if err := WriteJSON(file, r.Rows()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || len(list[0]) != 8 {
		t.Fatalf("got %s", text)
	}
	for name, want := range map[string]any{
		"measure": "idle_agent_kib", "subject": "culvert", "unit": "KiB",
		"median": 80.0, "min": 80.0, "max": 80.0, "rounds": 1.0, "ratio": nil,
	} {
		if got, ok := list[0][name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if err := WriteJSON(file, nil); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(file); err != nil || strings.TrimSpace(string(text)) != "[]" {
		t.Errorf("no rows: %q %v", text, err)
	}
}
