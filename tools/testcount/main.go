// Command testcount reads what `go test -json` prints, shows it to a person, and
// counts it. The gate's last line is its sum: counted, never typed.
//
//	go test -json ./... | testcount -ledger FILE -name tests -as root
//	testcount -total FILE
//
// The first form prints one line a package, and the whole output of what failed. It
// adds a [Record] to the ledger, so that several runs (as root, as an ordinary
// user) and the other steps of the gate make one total. The second form prints that
// total. Both exit with 1 where anything failed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Getenv("REQUIRE_KERNEL") == "1")
	switch {
	case err == nil:
	case errors.Is(err, errFailed):
		os.Exit(1) // what failed is on stdout already
	default:
		fmt.Fprintln(os.Stderr, "testcount:", err)
		os.Exit(1)
	}
}

// errFailed is returned when the counting went well and something counted failed.
var errFailed = errors.New("something failed")

func run(args []string, stdin io.Reader, stdout io.Writer, requireKernel bool) error {
	flags := flag.NewFlagSet("testcount", flag.ContinueOnError)
	ledger := flags.String("ledger", "", "file to add the counts to")
	name := flags.String("name", "tests", "what this run is called in the ledger")
	as := flags.String("as", "", "who ran the tests: root or user")
	total := flags.String("total", "", "print the sum of this ledger, and nothing else")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("arguments: %w", err)
	}

	if *total != "" {
		records, err := readLedger(*total)
		if err != nil {
			return err
		}
		return printTotal(stdout, records, requireKernel)
	}

	record, err := count(stdin, stdout)
	if err != nil {
		return err
	}
	record.Name, record.As = *name, *as
	if *ledger == "" {
		return printTotal(stdout, []Record{record}, requireKernel)
	}
	fmt.Fprintf(stdout, "%s: %d passed, %d failed, %d skipped\n", record.Name, record.Passed, record.Failed, len(record.Skips))
	if err := appendLedger(*ledger, record); err != nil {
		return err
	}
	if record.Failed > 0 {
		return errFailed
	}
	return nil
}
