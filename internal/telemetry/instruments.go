package telemetry

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// instruments makes the instruments of one meter and remembers what each is, so
// that the documentation can be compared with them.
type instruments struct {
	meter metric.Meter
	errs  []error
	made  []instrument
}

// instrument describes one metric.
type instrument struct {
	name, unit, kind, about string
	labels                  []string
}

func (i *instruments) note(kind, name, unit, about string, labels []string) {
	i.made = append(i.made, instrument{name: name, unit: unit, kind: kind, about: about, labels: labels})
}

func (i *instruments) failed(err error) {
	if err != nil {
		i.errs = append(i.errs, err)
	}
}

func (i *instruments) err() error { return errors.Join(i.errs...) }

func (i *instruments) counter(name, about string, labels ...string) metric.Int64Counter {
	i.note("counter", name, "", about, labels)
	c, err := i.meter.Int64Counter(name, metric.WithDescription(about))
	i.failed(err)
	return c
}

func (i *instruments) upDown(name, about string, labels ...string) metric.Int64UpDownCounter {
	i.note("gauge", name, "", about, labels)
	c, err := i.meter.Int64UpDownCounter(name, metric.WithDescription(about))
	i.failed(err)
	return c
}

// seconds makes a histogram of durations; bounds are in seconds.
func (i *instruments) seconds(name, about string, bounds []float64, labels ...string) metric.Float64Histogram {
	i.note("histogram", name, "s", about, labels)
	h, err := i.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(about),
		metric.WithExplicitBucketBoundaries(bounds...))
	i.failed(err)
	return h
}

func (i *instruments) observedCounter(name, unit, about string, labels ...string) metric.Int64ObservableCounter {
	i.note("counter", name, unit, about, labels)
	c, err := i.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(about))
	i.failed(err)
	return c
}

func (i *instruments) observedSeconds(name, about string, labels ...string) metric.Float64ObservableCounter {
	i.note("counter", name, "s", about, labels)
	c, err := i.meter.Float64ObservableCounter(name, metric.WithUnit("s"), metric.WithDescription(about))
	i.failed(err)
	return c
}

func (i *instruments) observedGauge(name, unit, about string, labels ...string) metric.Int64ObservableGauge {
	i.note("gauge", name, unit, about, labels)
	g, err := i.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
	i.failed(err)
	return g
}

func (i *instruments) observedGaugeSeconds(name, about string, labels ...string) metric.Float64ObservableGauge {
	i.note("gauge", name, "s", about, labels)
	g, err := i.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(about))
	i.failed(err)
	return g
}

// onScrape has observe called at every scrape.
func (i *instruments) onScrape(observe func(metric.Observer), of ...metric.Observable) {
	_, err := i.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		observe(o)
		return nil
	}, of...)
	i.failed(err)
}

// labels keeps the attribute sets of the series that exist, so that recording
// makes none. A key is a struct of labels from bounded sets, so that the table is
// bounded. It is safe for concurrent use.
type labels[K comparable] struct {
	make func(K) []attribute.KeyValue

	mu   sync.RWMutex
	sets map[K]*series
}

// series are the options of one set of labels, as a slice so that a call with it
// allocates none.
type series struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func newLabels[K comparable](makeSet func(K) []attribute.KeyValue) *labels[K] {
	return &labels[K]{make: makeSet, sets: make(map[K]*series)}
}

func (l *labels[K]) of(key K) *series {
	l.mu.RLock()
	s := l.sets[key]
	l.mu.RUnlock()
	if s != nil {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s = l.sets[key]; s == nil {
		set := metric.WithAttributeSet(attribute.NewSet(l.make(key)...))
		s = &series{add: []metric.AddOption{set}, record: []metric.RecordOption{set}}
		l.sets[key] = s
	}
	return s
}
