package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"carrel/client"
	"carrel/protocol"
)

type psCmd struct {
	address

	Runs bool `help:"Show the going and the waiting runs as well."`
	JSON bool `help:"Print JSON."`
}

// pool is what `carrel ps --json` prints: what GET /v1/sandboxes gives, and the runs.
type pool struct {
	protocol.Sandboxes

	Runs []protocol.Run `json:"runs,omitempty"`
}

// Run shows the sandboxes of a daemon.
func (p *psCmd) Run(ctx context.Context, out *output) error {
	c, err := p.open()
	if err != nil {
		return err
	}
	defer c.Close()
	var live pool
	if live.Sandboxes, err = c.Sandboxes(ctx); err != nil {
		return p.explain(err)
	}
	if p.Runs {
		if live.Runs, err = goingRuns(ctx, c); err != nil {
			return p.explain(err)
		}
	}
	out = out.harmless()
	if p.JSON {
		return printIndented(out, live)
	}
	now := time.Now()
	if err := printSandboxes(out.stdout, live.Sandboxes, now); err != nil || !p.Runs {
		return err
	}
	if _, err := fmt.Fprintln(out.stdout); err != nil {
		return err
	}
	return printRuns(out.stdout, live.Runs, now)
}

// goingRuns are those that have not ended, the oldest first. One that changes its state
// meanwhile is in both lists, and shown once.
func goingRuns(ctx context.Context, c *client.Client) ([]protocol.Run, error) {
	seen := map[string]bool{}
	var runs []protocol.Run
	for _, status := range []protocol.RunStatus{protocol.StatusQueued, protocol.StatusRunning} {
		for r, err := range c.Runs(ctx, protocol.RunQuery{Status: status}) {
			if err != nil {
				return nil, err
			}
			if !seen[r.RunID] {
				seen[r.RunID] = true
				runs = append(runs, r)
			}
		}
	}
	slices.SortStableFunc(runs, func(a, b protocol.Run) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return runs, nil
}

func printSandboxes(to io.Writer, live protocol.Sandboxes, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tSTATE\tPID\tAGE\tUNUSED\tRUNS\tGOING\tMEMORY\tCPU\tISOLATION")
	byUser := slices.SortedStableFunc(slices.Values(live.Sandboxes), func(a, b protocol.Sandbox) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.PID, b.PID))
	})
	for _, s := range byUser {
		unused := "-" // it is in use, or never was
		if s.ActiveRuns == 0 && !s.LastUsedAt.IsZero() {
			unused = span(now.Sub(s.LastUsedAt))
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\t%.1fs\t%s\n", cell(s.UserID), cell(string(s.State)), s.PID,
			span(now.Sub(s.StartedAt)), unused, s.Runs, s.ActiveRuns, mebibytes(s.MemoryBytes), s.CPUSeconds, cell(s.Isolation))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to, "%d sandboxes, %d of them warm; %d runs wait for one\n", len(live.Sandboxes), live.Warm, live.Queued)
	return err
}

// printRuns prints runs as a table. One that is not over takes until now.
func printRuns(to io.Writer, runs []protocol.Run, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tUSER\tSESSION\tAGENT\tSTATUS\tSUBMITTED\tTOOK")
	for _, r := range runs {
		status, end := string(r.Status), now
		if r.Error != nil && r.Status == protocol.StatusFailed {
			status = string(r.Error.Code)
		}
		if r.EndedAt != nil {
			end = *r.EndedAt
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cell(r.RunID), cell(r.UserID), cell(r.SessionID), cell(r.Agent), cell(status),
			r.CreatedAt.Local().Format(time.DateTime), span(end.Sub(r.CreatedAt)))
	}
	return w.Flush()
}
