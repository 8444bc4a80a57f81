package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// UnitPass is the unit of rows that are 1 when a check passed and 0 when not.
const UnitPass = "pass"

// WriteTable prints the rows, then the failures. Bars are shown at Culvert's rows.
func WriteTable(w io.Writer, rows []Row, failures []Failure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "measure\tsubject\tmedian\tmin - max\tunit\trounds\tratio\tbar\tmet")
	last := ""
	for _, r := range rows {
		name := r.Measure
		if name == last {
			name = ""
		}
		last = r.Measure
		ratio, bar, met := "-", "", ""
		if r.Ratio != nil {
			ratio = strconv.FormatFloat(*r.Ratio, 'f', 2, 64)
			if *r.Ratio < 0.1 {
				ratio = strconv.FormatFloat(*r.Ratio, 'f', 3, 64)
			}
		}
		if b, ok := Bars[r.Measure]; ok && r.Subject == Culvert {
			bar = b.String()
			switch ok, known := b.Met(r); {
			case !known:
				met = "?"
			case ok:
				met = "yes"
			default:
				met = "NO"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", name, r.Subject,
			value(r.Median, r.Unit), value(r.Min, r.Unit)+" - "+value(r.Max, r.Unit), r.Unit, r.Rounds, ratio, bar, met)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for _, f := range failures {
		if _, err := fmt.Fprintf(w, "FAILED %s of %s: %s\n", f.Trial, f.Subject, strings.TrimSpace(f.Err.Error())); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	return nil
}

// value prints about three digits that count.
func value(v float64, unit string) string {
	if unit == UnitPass {
		if v == 1 {
			return "pass"
		}
		return "fail"
	}
	digits := 0
	switch size := math.Abs(v); {
	case size < 10:
		digits = 2
	case size < 100:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// WriteJSON writes the rows to a file as one list.
func WriteJSON(path string, rows []Row) error {
	if rows == nil {
		rows = []Row{} // a list, whatever happened
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}
