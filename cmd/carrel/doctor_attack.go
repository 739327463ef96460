package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/mattn/go-isatty"

	"carrel"
	"carrel/internal/selftest"
	"carrel/protocol"
)

// attack tries the whole table on this host and ends with status 1 unless all held.
func (d *doctorCmd) attack(ctx context.Context, cfg carrel.Config, isolation protocol.IsolationReport, out *output) error {
	if err := carrel.CheckIsolation(isolation); err != nil {
		return err // no sandbox would be started here
	}
	o, err := selfTest(cfg, isolation)
	if err != nil {
		return err
	}
	if isatty.IsTerminal(os.Stderr.Fd()) {
		o.Progress = func(tried, all int) { fmt.Fprintf(out.stderr, "\r%d of %d tried\x1b[K", tried, all) }
	}
	verdicts, err := selftest.All(ctx, o, d.Row)
	if o.Progress != nil {
		fmt.Fprint(out.stderr, "\r\x1b[K")
	}
	if err != nil {
		return fmt.Errorf("self-test: %w; see carrel doctor", err)
	}
	report, err := selftest.NewReport(isolation, verdicts)
	if err != nil {
		return err
	}
	if d.JSON {
		err = printIndented(out, report)
	} else {
		err = printAttacks(out, report)
	}
	if err == nil && report.Broken > 0 {
		return exitError(1)
	}
	return err
}

// selfTest says what to attack on this host: the worker of the configuration, by the
// small carrel-attacker beside this program, or by this very program where there is
// none: it takes a second longer to copy and to start.
func selfTest(cfg carrel.Config, isolation protocol.IsolationReport) (selftest.Options, error) {
	worker, err := cfg.FindWorker()
	if err != nil {
		return selftest.Options{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return selftest.Options{}, fmt.Errorf("find this program, which is the attacker: %w", err)
	}
	attacker := filepath.Join(filepath.Dir(self), "carrel-attacker")
	if _, err := os.Stat(attacker); err != nil {
		attacker = self
	}
	return selftest.Options{Worker: worker, Attacker: attacker, Daemon: self, Without: selftest.Without(isolation)}, nil
}

func printAttacks(out *output, r *selftest.Report) error {
	w := tabwriter.NewWriter(out.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tTIER\tATTACK\tRESULT\tCONTROL\tSTOPPED BY")
	rows := slices.SortedStableFunc(slices.Values(r.Rows), func(a, b selftest.Verdict) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Tier, b.Tier))
	})
	for _, v := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", v.Group, v.Tier, v.ID, v.Result, v.Control, strings.Join(v.StoppedBy, ", "))
	}
	err := w.Flush()
	for _, v := range rows {
		if v.Result == selftest.Broken || v.Unproven {
			fmt.Fprintf(out.stdout, "\n%s (%s): %s: %s\n", v.ID, v.Title, v.Result, v.Detail)
		}
	}
	user := "an ordinary user; some controls need root"
	if r.Root {
		user = "root"
	}
	_, last := fmt.Fprintf(out.stdout, "\nLinux %s, as %s: %d held, %d broken, %d not applicable\nreport %s\n",
		r.Kernel, user, r.Held, r.Broken, r.NotApplicable, r.Hash)
	return errors.Join(err, last)
}

// quickTest tries the rows of a quick self-test, and refuses a host on which one does
// not hold, unless that is what the missing layers of a degraded host come to.
func quickTest(ctx context.Context, cfg carrel.Config, isolation protocol.IsolationReport) (tried int, err error) {
	o, err := selfTest(cfg, isolation)
	if err != nil {
		return 0, err
	}
	verdicts, err := selftest.Quick(ctx, o)
	if err != nil {
		return 0, fmt.Errorf("self-test (SANDBOX_SELF_TEST): %w", err)
	}
	var broken []string
	for _, v := range verdicts {
		if v.Result == selftest.Broken && !v.Documented {
			broken = append(broken, fmt.Sprintf("%s (%s)", v.ID, v.Title))
		}
	}
	if len(broken) > 0 {
		return 0, protocol.Errorf(protocol.CodeIsolationUnavailable,
			"the self-test broke out of a sandbox: %s; do not serve on this host; see carrel doctor --attack", strings.Join(broken, ", "))
	}
	return len(verdicts), nil
}
