package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"carrel/client"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// manyEvents is a script of whose lines each has the time to be an event of its own.
const manyEvents = `i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; /bin/true; done`

// reader is one walk over a run's events.
type reader struct {
	runID  string
	after  int64
	events []protocol.Event
	err    error
}

// walk reads to the end, and holds each event against the one before. seen, if it is
// not nil, is told of each.
func (r *reader) walk(ctx context.Context, c *client.Client, seen func()) {
	last := r.after
	for ev, err := range c.Events(ctx, r.runID, r.after) {
		if err != nil {
			r.err = err
			return
		}
		if ev.Seq != last+1 || ev.RunID != r.runID {
			r.err = fmt.Errorf("event %d of %s after event %d of %s", ev.Seq, ev.RunID, last, r.runID)
			return
		}
		last = ev.Seq
		r.events = append(r.events, ev)
		if seen != nil {
			seen()
		}
	}
	if len(r.events) == 0 || !r.events[len(r.events)-1].Type.Ends() {
		r.err = errShort
	}
}

// judge holds what was read against the record, read over a line that does not break.
func (r *reader) judge(d *daemon) {
	d.t.Helper()
	if r.err != nil {
		d.t.Errorf("%s after event %d: %v", r.runID, r.after+int64(len(r.events)), r.err)
		return
	}
	record := d.events(r.runID, r.after)
	if len(record) != len(r.events) {
		d.t.Errorf("%s after event %d: %d events were read, and there are %d", r.runID, r.after, len(r.events), len(record))
		return
	}
	for i, ev := range r.events {
		if want := record[i]; ev.Seq != want.Seq || ev.Type != want.Type || string(ev.Data) != string(want.Data) || !ev.Time.Equal(want.Time) {
			d.t.Errorf("%s: event %d was read as %+v, and is %+v", r.runID, ev.Seq, ev, want)
		}
	}
}

// over is a client whose connections go over a line.
func over(t *testing.T, l *line) *client.Client {
	t.Helper()
	c, err := client.New(l.url, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Runs that tell thousands of events, over a line that breaks all the time: whoever
// reads them, from their start on or from anywhere, reads each once.
func TestEventsComeOnceOverALineThatBreaks(t *testing.T) {
	d := serve(t, t.TempDir())
	l := newLine(t, d.url, "", 48<<10)
	c := over(t, l)
	var readers []*reader
	var reading sync.WaitGroup
	for _, user := range []string{"ana", "bob"} {
		run, err := c.Execute(t.Context(), protocol.ExecuteRequest{UserID: user, Message: manyEvents}, client.ExecuteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, after := range []int64{0, 1, 700} {
			r := &reader{runID: run.RunID, after: after}
			readers = append(readers, r)
			reading.Go(func() { r.walk(t.Context(), c, nil) })
		}
	}
	streamed := &reader{}
	reading.Go(func() {
		req := protocol.ExecuteRequest{UserID: "cyd", Message: manyEvents}
		for ev, err := range c.ExecuteStream(t.Context(), req, client.ExecuteOptions{}) {
			if streamed.err = err; err != nil {
				return
			}
			streamed.runID = ev.RunID
			streamed.events = append(streamed.events, ev)
		}
	})
	reading.Wait()

	total := 0
	for _, r := range append(readers, streamed) {
		r.judge(d)
		total += len(r.events)
	}
	// Else the test would hold little.
	if cuts := l.cutSoFar(); total < 2000 || cuts < 10 {
		t.Errorf("%d events were read, and %d connections cut", total, cuts)
	}
	if page, err := d.client.RunPage(t.Context(), protocol.RunQuery{}); err != nil || len(page.Runs) != 3 {
		t.Errorf("%d runs were started, %v; want 3", len(page.Runs), err)
	}
	d.stop()
}

// The command line shows what a daemon's run prints, each line once, over such a line.
func TestRunByADaemonOverALineThatBreaks(t *testing.T) {
	d := serve(t, t.TempDir())
	l := newLine(t, d.url, "/events", 48<<10)
	stdout, stderr, status := command(t, []string{"PATH=" + os.Getenv("PATH")}, "run", "--url", l.url, "--user", "ana", manyEvents+"; exit 6")
	var want strings.Builder
	for i := range 2000 {
		fmt.Fprintln(&want, i+1)
	}
	if stdout != want.String() || status != 6 {
		t.Errorf("status %d, %d bytes, want %d: %s", status, len(stdout), want.Len(), stderr)
	}
	if l.cutSoFar() == 0 {
		t.Error("no connection was cut, which holds nothing")
	}
	d.stop()
}

// A daemon that is killed in mid-stream and started anew: its runs end as interrupted,
// and their readers read on as if nothing had been.
func TestReadersOutliveAKilledDaemon(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	l := newLine(t, d.url, "", 48<<10)
	c := over(t, l)
	const enough = 50
	var readers []*reader
	var reading, begun sync.WaitGroup
	for _, user := range []string{"ana", "bob"} {
		run, err := c.Execute(t.Context(), protocol.ExecuteRequest{UserID: user, Message: "while :; do echo on; sleep 0.005; echo and on >&2; done"}, client.ExecuteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r := &reader{runID: run.RunID}
			readers = append(readers, r)
			begun.Add(1)
			reading.Go(func() {
				left := enough
				var once sync.Once
				r.walk(t.Context(), c, func() {
					if left--; left == 0 {
						once.Do(begun.Done)
					}
				})
				once.Do(begun.Done) // it ended too early, and judge tells
			})
		}
	}
	begun.Wait()
	d.Kill()
	l.lose()
	d = serve(t, base)
	l.reach(t, d.url)
	reading.Wait()
	for _, r := range readers {
		r.judge(d)
		if len(r.events) < enough {
			continue
		}
		last, err := r.events[len(r.events)-1].Decode()
		if e, ok := last.(protocol.RunError); err != nil || !ok || !errors.Is(e.Err(), protocol.CodeInterrupted) {
			t.Errorf("%s ended with %+v, %v; want interrupted", r.runID, last, err)
		}
	}
	d.stop()
}

// Whoever has enough in mid-stream leaves nothing behind: no goroutine, no connection.
func TestReaderThatLeavesFreesAllItHad(t *testing.T) {
	d := serve(t, t.TempDir())
	run := d.start("ana", "while :; do echo on; sleep 0.01; done", "on")
	l := newLine(t, d.url, "nothing breaks here", 1)
	before := goleak.IgnoreCurrent()
	enough := errors.New("enough")
	for name, leave := range map[string]func(cancel context.CancelCauseFunc) (stop bool){
		"by its context": func(cancel context.CancelCauseFunc) bool { cancel(enough); return false },
		"by a break":     func(context.CancelCauseFunc) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			c := over(t, l)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var ended error
			for ev, err := range c.Events(ctx, run.RunID, 0) {
				if ended = err; err != nil {
					break
				}
				if ev.Seq >= 5 && leave(cancel) {
					ended = enough
					break
				}
			}
			if !errors.Is(ended, enough) {
				t.Errorf("it ended with %v", ended)
			}
			c.Close()
			ordeal.Eventually(t, "no connection is left", func() bool { return l.open() == 0 })
			ordeal.Eventually(t, "no goroutine is left", func() bool { return goleak.Find(before) == nil })
		})
	}
	if got, err := d.client.Run(t.Context(), run.RunID); err != nil || got.Status != protocol.StatusRunning {
		t.Errorf("the run that was left is %q, %v", got.Status, err)
	}
	if _, err := d.client.Cancel(t.Context(), run.RunID); err != nil {
		t.Fatal(err)
	}
	d.events(run.RunID, 0)
	d.stop()
}
