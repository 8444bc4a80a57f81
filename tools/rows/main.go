// Rows ties the promises of docs/features.md to the tests that prove them.
//
// Usage:
//
//	go test -json ./... | rows record [-live] FILE
//	rows report FEATURES DIR
//
// Record stores the JSON events of one go test run in FILE and shows the run as
// go test without -json would. Report reads the table of FEATURES and every
// stored run test-*.json in DIR, and prints one line "ID pass|fail|none test" a
// row; further tests of the same row follow on indented lines.
//
// A test proves a row when its name, or that of one of its subtests, starts
// with the row's id: t.Run("O16: sentence", ...), or "O15,O16: sentence" for
// several.
//
// Exit status: 0, 1 when a row or a package failed, 2 for wrong usage or
// unreadable input.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// errFailed says that the report is complete and has failures in it.
var errFailed = errors.New("rows: something failed")

func main() {
	switch err := run(os.Args[1:], os.Stdin, os.Stdout); {
	case err == nil:
	case errors.Is(err, errFailed):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("rows: give a command: record [-live] FILE, or report FEATURES DIR")
	}
	flags := flag.NewFlagSet("rows "+args[0], flag.ContinueOnError)
	switch args[0] {
	case "record":
		live := flags.Bool("live", false, "show each finished top-level test at once")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if flags.NArg() != 1 {
			return errors.New("rows record: give the one file that keeps the events")
		}
		return recordFile(in, out, flags.Arg(0), *live)
	case "report":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if flags.NArg() != 2 {
			return errors.New("rows report: give the table of features and the folder of stored runs")
		}
		return report(out, flags.Arg(0), flags.Arg(1))
	default:
		return fmt.Errorf("rows: unknown command %q: use record or report", args[0])
	}
}
