package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// state makes the metrics that are read from the process at a scrape: its links,
// its memory, and what its other parts count by themselves.
func (t *Telemetry) state(in *instruments) {
	t.health(in)
	if t.cfg.Links != nil {
		t.links(in)
	}
	if t.cfg.Endpoints != nil {
		t.endpoints(in)
	}
	if t.cfg.Budget != nil {
		t.budget(in)
	}
	for _, c := range []struct {
		read        func() uint64
		name, about string
	}{
		{t.cfg.AuditDropped, "culvert.audit.dropped", "Audit events that a full sink did not take."},
		{t.cfg.AuditFailed, "culvert.audit.failures", "Audit events that could not be delivered."},
		{t.cfg.SpansLost, "culvert.spans.lost", "Spans that could not be exported."},
	} {
		if c.read != nil {
			observed := in.observedCounter(c.name, "", c.about)
			in.onScrape(func(o metric.Observer) { o.ObserveInt64(observed, int64(c.read())) }, observed)
		}
	}
}

func (t *Telemetry) health(in *instruments) {
	expiry := in.observedGauge("culvert.certificate.expiry.timestamp", "s", "When the certificate expires, in seconds since 1970.", "name")
	failures := in.observedCounter("culvert.reload.failures", "",
		"How often changed content of a file could not be used; what was read before stays in force.", "name")
	in.onScrape(func(o metric.Observer) {
		for _, h := range t.cfg.Health() {
			name := metric.WithAttributes(attribute.String("name", h.Name))
			o.ObserveInt64(failures, int64(h.Failures), name)
			if !h.NotAfter.IsZero() {
				o.ObserveInt64(expiry, h.NotAfter.Unix(), name)
			}
		}
	}, expiry, failures)
}

func (t *Telemetry) links(in *instruments) {
	links := in.observedGauge("culvert.links", "", "Tunnels that are connected.", "cluster")
	unready := in.observedGauge("culvert.links.unready", "", "Tunnels whose agent says that it cannot reach its API server.", "cluster")
	sessions := in.observedGauge("culvert.sessions", "", "Sessions that are open, pending ones included.", "cluster")
	pending := in.observedGauge("culvert.sessions.pending", "", "Sessions that are being opened.", "cluster")
	stalled := in.observedGauge("culvert.sessions.stalled", "", "Sessions that have bytes to send and no credit.", "cluster")
	stall := in.observedSeconds("culvert.credit.stall", "How long sessions were stalled, all of them added up.", "cluster")
	queue := in.observedGauge("culvert.send.queue", "By", "Bytes of sessions that wait to be sent.", "cluster")
	carried := in.observedCounter("culvert.tunnel", "By", "Bytes of sessions that passed the tunnels.", "cluster", "direction")
	rtt := in.observedGaugeSeconds("culvert.link.rtt", "Smallest recent round trip of the tunnels.", "cluster")
	in.onScrape(func(o metric.Observer) {
		for label, c := range t.cfg.Links.byCluster() {
			cluster := attribute.String("cluster", label)
			set := metric.WithAttributeSet(attribute.NewSet(cluster))
			o.ObserveInt64(links, int64(c.links), set)
			o.ObserveInt64(unready, int64(c.unready), set)
			o.ObserveInt64(sessions, int64(c.stats.Sessions), set)
			o.ObserveInt64(pending, int64(c.stats.Pending), set)
			o.ObserveInt64(stalled, int64(c.stats.Stalled), set)
			o.ObserveFloat64(stall, c.stall.Seconds(), set)
			o.ObserveInt64(queue, int64(c.stats.Queued), set)
			if c.stats.RTT > 0 {
				o.ObserveFloat64(rtt, c.stats.RTT.Seconds(), set)
			}
			o.ObserveInt64(carried, int64(c.sent), metric.WithAttributes(cluster, attribute.String("direction", "sent")))
			o.ObserveInt64(carried, int64(c.received), metric.WithAttributes(cluster, attribute.String("direction", "received")))
		}
	}, links, unready, sessions, pending, stalled, stall, queue, carried, rtt)
}

func (t *Telemetry) budget(in *instruments) {
	limit := in.observedGauge("culvert.memory.limit", "By", "What tunnels may commit themselves to.")
	committed := in.observedGauge("culvert.memory.committed", "By", "Credit that was given and not used, and bytes that were not read.")
	queued := in.observedGauge("culvert.memory.queued", "By", "Bytes that wait to be sent, of all tunnels.")
	in.onScrape(func(o metric.Observer) {
		o.ObserveInt64(limit, t.cfg.Budget.Limit())
		o.ObserveInt64(committed, t.cfg.Budget.Used())
		o.ObserveInt64(queued, t.cfg.Budget.Queued())
	}, limit, committed, queued)
}
