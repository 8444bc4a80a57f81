package stats

import (
	"math"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSummarize(t *testing.T) {
	for title, c := range map[string]struct {
		values []float64
		want   Summary
	}{
		"none":             {nil, Summary{}},
		"one":              {[]float64{7}, Summary{7, 7, 7, 1}},
		"odd, unsorted":    {[]float64{9, 1, 5}, Summary{5, 1, 9, 3}},
		"even":             {[]float64{4, 1, 2, 100}, Summary{3, 1, 100, 4}},
		"an outlier stays": {[]float64{10, 10, 10, 10, 0.1}, Summary{10, 0.1, 10, 5}},
	} {
		t.Run(title, func(t *testing.T) {
			before := slices.Clone(c.values)
			if got := Summarize(c.values); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if !slices.Equal(before, c.values) {
				t.Errorf("the values were changed to %v", c.values)
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{[]time.Duration{3}, 0.99, 3},
		{[]time.Duration{3}, 0, 3},
		{[]time.Duration{1, 2}, 0.5, 1},
		{[]time.Duration{1, 2, 3}, 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
	} {
		if got := Percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile %v of %d values: got %v, want %v", c.p, len(c.sorted), got, c.want)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		a, b, want float64
		ok         bool
	}{
		{3, 4, 0.75, true},
		{0, 4, 0, true},
		{1, 0, 0, false},
		{0, 0, 0, false},
		{math.Inf(1), 2, 0, false},
		{math.NaN(), 2, 0, false},
	} {
		if got, ok := Ratio(c.a, c.b); got != c.want || ok != c.ok {
			t.Errorf("%v/%v: got %v %v, want %v %v", c.a, c.b, got, ok, c.want, c.ok)
		}
	}
}
