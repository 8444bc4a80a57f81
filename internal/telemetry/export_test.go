package telemetry

import "time"

// Patient gives answers more time than a scraper has: under the race detector a busy
// machine may need it for those of thousands of clusters. Call it before Serve.
func (s *Server) Patient() { s.http.WriteTimeout = 10 * time.Minute }

// Made describes the metrics of t: name and unit as OpenTelemetry has them, the
// type, and the labels.
func (t *Telemetry) Made() (out []Instrument) {
	for _, m := range t.made {
		out = append(out, Instrument{m.name, m.unit, m.kind, m.about, m.labels})
	}
	return out
}

// Instrument is one metric.
type Instrument struct {
	Name, Unit, Kind, About string
	Labels                  []string
}

// Attributes are those that spans may have.
func Attributes() (out []string) {
	for _, a := range spanAttributes {
		out = append(out, string(a))
	}
	return out
}

// MaxClusters is how many clusters have series of their own.
const MaxClusters = maxClusters
