// Package stats reduces samples to the figures that are reported: medians with
// their range, and percentiles of round trips.
package stats

import (
	"math"
	"slices"
	"time"
)

// Summary describes the values of several rounds. Without values it is zero.
type Summary struct {
	Median, Min, Max float64
	// Rounds is how many values there were.
	Rounds int
}

// Summarize returns the summary of values, which it does not change. The median
// of an even number of values is the mean of the two in the middle.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	mid := len(sorted) / 2
	median := sorted[mid]
	if len(sorted)%2 == 0 {
		median = (sorted[mid-1] + sorted[mid]) / 2
	}
	return Summary{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1], Rounds: len(sorted)}
}

// Percentile returns the smallest of sorted that at least the fraction p of them
// does not exceed (the nearest-rank method); 0 for none. The values must be in
// ascending order, p between 0 and 1.
func Percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Ratio returns a/b, and false where it means nothing: b is 0 or either is not a
// finite number.
func Ratio(a, b float64) (float64, bool) {
	r := a / b
	if b == 0 || math.IsNaN(r) || math.IsInf(r, 0) {
		return 0, false
	}
	return r, true
}
