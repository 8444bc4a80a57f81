package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Endpoint is the state of one address of an agent's API server.
type Endpoint struct {
	// Address is from the configuration, or from DNS for a name there.
	Address     string
	Healthy     bool
	Outstanding int
}

func (t *Telemetry) endpoints(in *instruments) {
	healthy := in.observedGauge("culvert.endpoint.healthy", "", "1 for an endpoint of the API server that gets requests, 0 for one that has failed.", "endpoint")
	outstanding := in.observedGauge("culvert.endpoint.outstanding", "", "Requests and sessions under way at an endpoint of the API server.", "endpoint")
	in.onScrape(func(o metric.Observer) {
		for _, e := range t.cfg.Endpoints() {
			set := metric.WithAttributeSet(attribute.NewSet(attribute.String("endpoint", e.Address)))
			value := int64(0)
			if e.Healthy {
				value = 1
			}
			o.ObserveInt64(healthy, value, set)
			o.ObserveInt64(outstanding, int64(e.Outstanding), set)
		}
	}, healthy, outstanding)
}
