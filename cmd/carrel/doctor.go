package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"carrel"
	"carrel/internal/installation"
	"carrel/protocol"
)

type doctorCmd struct {
	JSON   bool `help:"Print the report as JSON."`
	Attack bool `help:"Attack throw-away sandboxes and tell which rows of the table held; status 1 if one did not."`
	// Row narrows Attack.
	Row []string `help:"With --attack: these rows alone, by their ids." placeholder:"ID"`
}

// doctorReport is what --json prints.
type doctorReport struct {
	protocol.IsolationReport

	Installation []installation.Finding `json:"installation"`
}

// Run shows the isolation of this host, and how carrel is installed on it. It ends with
// status 1 if what the configuration asks for is not met; for the installation there is
// advice alone.
func (d *doctorCmd) Run(ctx context.Context, c *cli, out *output) error {
	cfg, err := c.loadConfig(nil)
	if err != nil {
		return err
	}
	if len(d.Row) > 0 && !d.Attack {
		return errors.New("--row is for --attack: carrel doctor --attack --row " + d.Row[0])
	}
	report := carrel.Isolation(ctx, cfg)
	unmet := carrel.CheckIsolation(report)
	if d.Attack {
		return d.attack(ctx, cfg, report, out)
	}
	installed := installation.Check(installation.Options{BaseDir: cfg.BaseDir, MaxWorkers: cfg.MaxWorkers, PIDsLimit: cfg.PIDsLimit})
	if d.JSON {
		err = printIndented(out, doctorReport{report, installed})
	} else {
		err = errors.Join(printReport(out, report, unmet), printInstallation(out, installed))
	}
	if err != nil {
		return err
	}
	if unmet != nil {
		return exitError(1)
	}
	return nil
}

func printIndented(out *output, v any) error {
	encoder := json.NewEncoder(out.stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func printReport(out *output, r protocol.IsolationReport, unmet error) error {
	who := "an ordinary user"
	if r.Root {
		who = "root"
	}
	fmt.Fprintf(out.stdout, "Linux %s, as %s, SANDBOX_ISOLATION=%s\n\n", r.Kernel, who, r.Mode)
	w := tabwriter.NewWriter(out.stdout, 0, 0, 2, ' ', 0)
	for _, l := range r.Layers {
		required := ""
		if l.Required {
			required = "required"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Name, l.State, required, l.Detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, l := range r.Layers {
		if l.State != protocol.LayerOK {
			fmt.Fprintf(out.stdout, "\n%s: without it %s.\n  to get it: %s\n", l.Name, l.Meaning, l.Fix)
		}
	}
	if unmet != nil {
		_, err := fmt.Fprintf(out.stdout, "\ncarrel does not start here: %v\n", unmet)
		return err
	}
	_, err := fmt.Fprintf(out.stdout, "\ncarrel starts here: %s\n", r.State)
	return err
}

// printInstallation shows what there is to say of the installation, and what to do.
func printInstallation(out *output, findings []installation.Finding) error {
	fmt.Fprint(out.stdout, "\nInstallation\n\n")
	w := tabwriter.NewWriter(out.stdout, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.State, f.Detail)
	}
	err := w.Flush()
	for _, f := range findings {
		if f.State == installation.Warn {
			_, printed := fmt.Fprintf(out.stdout, "\n%s: %s.\n  what to do: %s\n", f.Name, f.Detail, f.Fix)
			err = errors.Join(err, printed)
		}
	}
	return err
}
