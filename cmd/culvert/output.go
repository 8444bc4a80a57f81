package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/cmd/internal/cli"
)

// outputFlag is in which form a command prints its result.
type outputFlag struct {
	form string
}

const (
	formTable = "table"
	formJSON  = "json"
	formYAML  = "yaml"
	formWide  = "wide"
)

// wide tells whether a table has all columns.
func (o *outputFlag) wide() bool { return o.form == formWide }

// people tells whether the result is a table, for people, and nothing that a program reads.
func (o *outputFlag) people() bool { return o.form == formTable || o.form == formWide }

func (o *outputFlag) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.form, "output", "o", formTable, "form of the result: table, wide, json or yaml")
	completeWords(cmd, "output", formTable, formWide, formJSON, formYAML)
}

func (o *outputFlag) check() error {
	if !slices.Contains([]string{formTable, formWide, formJSON, formYAML}, o.form) {
		return cli.Usagef("--output: %q is not table, wide, json or yaml", o.form)
	}
	return nil
}

// print writes value, or what table writes of it.
func (o *outputFlag) print(w io.Writer, value any, table func(w io.Writer) error) error {
	var text []byte
	var err error
	switch o.form {
	case formJSON:
		text, err = json.MarshalIndent(value, "", "  ")
		text = append(text, '\n')
	case formYAML:
		text, err = yaml.Marshal(value)
	default:
		return table(w)
	}
	if err != nil {
		return fmt.Errorf("--output %s: %w", o.form, err)
	}
	_, err = w.Write(text)
	return err
}

// columnGap is what stands between two columns.
const columnGap = 3

// rows writes a table; an empty one has its head, so that it is seen to be one.
func rows(w io.Writer, head []string, lines [][]string) error {
	widths := make([]int, len(head))
	lines = append([][]string{head}, lines...)
	for _, line := range lines {
		for i, cell := range line {
			line[i] = printable(cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i])+columnGap)
		}
	}
	return writeRows(w, widths, lines)
}

func writeRows(w io.Writer, widths []int, lines [][]string) error {
	paint := coloured(w)
	var b strings.Builder
	for _, line := range lines {
		for i, cell := range line {
			shown := cell
			if colour := colours[cell]; paint && colour != "" {
				shown = colour + cell + plain
			}
			b.WriteString(shown)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", max(1, widths[i]-utf8.RuneCountInString(cell))))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fields writes one thing, a field a line, without those that are empty.
func fields(w io.Writer, pairs ...[2]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range pairs {
		if p[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(t, "%s:\t%s\n", p[0], printable(p[1])); err != nil {
			return err
		}
	}
	return t.Flush()
}

// printable keeps what others say from being read by a terminal, and shows that there is
// nothing.
func printable(s string) string { return cmp.Or(cli.Printable(s), "-") }

// counted is a number of things.
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// when writes a time for people; empty for none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// until writes a time and how far it is.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	left := time.Until(t)
	if left < 0 {
		return when(t) + " (" + span(-left) + " ago)"
	}
	return when(t) + " (in " + span(left) + ")"
}

// span writes a time for people: days where hours say nothing.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 3*day {
		return strconv.Itoa(int(d/day)) + " days"
	}
	return d.Round(time.Second).String()
}

func labelText(labels map[string]string) string {
	var parts []string
	for key, value := range labels {
		parts = append(parts, key+"="+value)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
