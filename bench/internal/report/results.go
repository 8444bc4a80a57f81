// Package report turns the samples of a run into rows, and prints them as a table
// for people and as JSON for programs.
package report

import (
	"slices"

	"github.com/culvertdev/culvert/bench/internal/stats"
)

// Names of subjects that rows are compared by.
const (
	// Culvert is the subject of Culvert's own rows.
	Culvert = "culvert"
	// Reference is the subject that ratios are taken to.
	Reference = "reference"
)

// Row is one measure of one subject. The JSON names are read by other programs.
type Row struct {
	Measure string  `json:"measure"`
	Subject string  `json:"subject"`
	Unit    string  `json:"unit"`
	Median  float64 `json:"median"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Rounds  int     `json:"rounds"`
	// Ratio is the median divided by that of the reference in the same run; nil
	// when there is none.
	Ratio *float64 `json:"ratio"`
}

// Failure is a trial that gave no figure.
type Failure struct {
	Trial, Subject string
	Err            error
}

type key struct{ measure, subject string }

// Results collects the samples of a run. One goroutine at a time; the zero value
// is ready.
type Results struct {
	// Base is the subject that ratios are taken to; empty means Reference.
	Base string

	measures []string // in the order of their first sample
	subjects []string
	units    map[string]string
	samples  map[key][]float64
	failures []Failure
}

// Add records the value of one round.
func (r *Results) Add(measure, unit, subject string, value float64) {
	if r.samples == nil {
		r.samples, r.units = map[key][]float64{}, map[string]string{}
	}
	if !slices.Contains(r.measures, measure) {
		r.measures = append(r.measures, measure)
	}
	if !slices.Contains(r.subjects, subject) {
		r.subjects = append(r.subjects, subject)
	}
	r.units[measure] = unit
	k := key{measure, subject}
	r.samples[k] = append(r.samples[k], value)
}

// Fail records that a trial of a subject gave no figure.
func (r *Results) Fail(trial, subject string, err error) {
	r.failures = append(r.failures, Failure{trial, subject, err})
}

// Failures returns what Fail recorded.
func (r *Results) Failures() []Failure { return r.failures }

// Rows returns a row for each measure and subject with samples, in the order in
// which they came.
func (r *Results) Rows() []Row {
	base := r.Base
	if base == "" {
		base = Reference
	}
	var rows []Row
	for _, m := range r.measures {
		reference := stats.Summarize(r.samples[key{m, base}])
		for _, s := range r.subjects {
			values := r.samples[key{m, s}]
			if len(values) == 0 {
				continue
			}
			sum := stats.Summarize(values)
			row := Row{
				Measure: m, Subject: s, Unit: r.units[m],
				Median: sum.Median, Min: sum.Min, Max: sum.Max, Rounds: sum.Rounds,
			}
			if ratio, ok := stats.Ratio(sum.Median, reference.Median); ok && reference.Rounds > 0 {
				row.Ratio = &ratio
			}
			rows = append(rows, row)
		}
	}
	return rows
}
