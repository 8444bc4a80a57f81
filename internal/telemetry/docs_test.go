package telemetry_test

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
)

// metric is one row of the documentation, or one family of a scrape.
type metric struct {
	kind, about string
	labels      []string
}

func (m metric) String() string { return m.kind + " " + strings.Join(m.labels, " ") + " " + m.about }

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(culvert_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| ([^|]+) \\|$")
	attrRow   = regexp.MustCompile("(?m)^\\| `((?:http|url|culvert)\\.[a-z_.]+)` \\|")
	code      = regexp.MustCompile("`([^`]+)`")
	label     = regexp.MustCompile(`([a-z_]+)="`)
)

func documentation(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documented reads the table of metrics.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	out := make(map[string]metric)
	for _, row := range metricRow.FindAllStringSubmatch(documentation(t), -1) {
		m := metric{kind: row[2], about: row[4]}
		for _, name := range code.FindAllStringSubmatch(row[3], -1) {
			m.labels = append(m.labels, name[1])
		}
		slices.Sort(m.labels)
		out[row[1]] = m
	}
	return out
}

// families reads a scrape.
func families(body string) map[string]metric {
	out := make(map[string]metric)
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, about, _ := strings.Cut(rest, " ")
			out[name] = metric{about: about}
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			m := out[name]
			m.kind = kind
			out[name] = m
			continue
		}
		name, labels, _ := strings.Cut(line, "{")
		name, _, _ = strings.Cut(name, " ")
		if _, ok := out[name]; !ok {
			name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		}
		m := out[name]
		m.labels = nil
		for _, l := range label.FindAllStringSubmatch(labels, -1) {
			if l[1] != "le" {
				m.labels = append(m.labels, l[1])
			}
		}
		slices.Sort(m.labels)
		out[name] = m
	}
	return out
}

// everything makes each metric appear.
func everything(t *testing.T) (tel *telemetry.Telemetry, url string) {
	t.Helper()
	links := telemetry.NewLinks()
	one := func() uint64 { return 1 }
	tel, url = scraped(t, telemetry.Config{
		Health:    func() []telemetry.Health { return []telemetry.Health{{Name: "a", NotAfter: time.Now()}} },
		Endpoints: func() []telemetry.Endpoint { return []telemetry.Endpoint{{Address: "10.0.0.1:6443", Healthy: true}} },
		Links:     links, Budget: mux.NewBudget(1), AuditDropped: one, AuditFailed: one, SpansLost: one,
	})
	p := muxtest.New(t)
	links.Add(telemetry.LinkInfo{Cluster: "edge"}, p.Dialler)
	ours, theirs := p.Open(t) // the round trip is known then
	exchange(t, ours, theirs, "x")
	m := tel.Metrics()
	o := telemetry.Observer{Metrics: m}
	seen, _ := o.Begin(request(t), finished{status: 200})
	seen.Route("edge", wire.KubernetesAPI())
	seen.End()
	_, open := o.StartOpen(t.Context(), telemetry.OpenStart{Cluster: "edge"})
	open.End(nil)
	_, session := o.StartSession(t.Context(), telemetry.SessionStart{OpenStart: telemetry.OpenStart{Cluster: "edge"}})
	session.End(telemetry.SessionEnd{})
	m.Dialled(telemetry.KindService, nil, time.Second)
	m.Authenticated("token", telemetry.Allowed)
	m.Decided(telemetry.Allowed)
	m.Limited("user")
	m.Panicked("request")
	m.Called("Connect", "OK")
	return tel, url
}

func TestDocumentation(t *testing.T) {
	tel, url := everything(t)
	_, body := get(t, url)
	scrape, docs := families(body), documented(t)
	t.Run("K10: docs/telemetry.md has every metric as a scrape shows it, and no other", func(t *testing.T) {
		if len(scrape) != len(tel.Made()) {
			t.Errorf("%d metrics are scraped of %d that are made:\n%s", len(scrape), len(tel.Made()), body)
		}
		for _, name := range slices.Sorted(maps.Keys(scrape)) {
			if got, ok := docs[name]; !ok || got.String() != scrape[name].String() {
				t.Errorf("%s\n documented: %v\n is:         %v", name, got, scrape[name])
			}
		}
		for name := range docs {
			if _, ok := scrape[name]; !ok {
				t.Errorf("%s is documented, and no scrape has it", name)
			}
		}
	})
	t.Run("K10: docs/telemetry.md has every label", func(t *testing.T) {
		for _, made := range tel.Made() {
			for _, l := range made.Labels {
				if !strings.Contains(documentation(t), fmt.Sprintf("\n| `%s` | ", l)) {
					t.Errorf("the label %s of %s is not documented", l, made.Name)
				}
			}
		}
	})
	t.Run("N11: docs/telemetry.md has every attribute of spans, and no other", func(t *testing.T) {
		var rows []string
		for _, row := range attrRow.FindAllStringSubmatch(documentation(t), -1) {
			rows = append(rows, row[1])
		}
		want := telemetry.Attributes()
		slices.Sort(rows)
		slices.Sort(want)
		if !slices.Equal(rows, want) {
			t.Errorf("documented: %v\nthere are:  %v", rows, want)
		}
	})
	t.Run("N11: docs/telemetry.md bounds the clusters as the code does", func(t *testing.T) {
		if !strings.Contains(documentation(t), fmt.Sprintf("beyond the first %d", telemetry.MaxClusters)) {
			t.Errorf("the bound of %d is not documented", telemetry.MaxClusters)
		}
	})
}
