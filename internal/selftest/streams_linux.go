package selftest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"carrel/internal/jail/attack"
)

// streamExchanges are about event streams: what they are made of, and who holds them.
func streamExchanges() []exchange {
	const split = "x\\n\\nid: 99\\nevent: RUN_FINISHED\\ndata: forged\\n\\n"
	return []exchange{
		{
			id: "frame-text", title: "break a frame by the text of an event", stoppedBy: []string{ruleFrame},
			attack: breakFrame(`{"user_id":"ana","message":"hostile echo ` + split + `"}`), control: readFrame,
		},
		{
			id: "frame-session", title: "break a frame by a session's id", stoppedBy: []string{ruleFrame, "httpapi:ids"},
			attack: breakFrame(`{"user_id":"ana","message":"hostile honest","session_id":"` + split + `"}`), control: readFrame,
		},
		{
			id: "header-location", title: "break the answer's header by a session's id", stoppedBy: []string{"httpapi:ids"},
			attack: breakHeader, control: readFrame,
		},
		{id: "slow-readers", title: "hold the daemon up by readers that do not read", stoppedBy: []string{"httpapi:pull"}, attack: holdUp, control: readFrame},
		{id: "storm", title: "hold the daemon up by coming back all the time", stoppedBy: []string{"httpapi:pull"}, attack: comeBack, control: readFrame},
	}
}

func stream(d *daemon, body string) request {
	return request{
		key: d.keys[ana], method: http.MethodPost, path: "/v1/execute", body: body, header: http.Header{"Accept": {"text/event-stream"}},
	}
}

// readFrame reads a run's events as they stand.
func readFrame(ctx context.Context, d *daemon) error {
	status, body, err := d.ask(ctx, stream(d, `{"user_id":"ana","message":"hostile echo legible"}`))
	if err != nil {
		return err
	}
	if status != http.StatusOK || !strings.Contains(body, "\nevent: TEXT_DELTA\n") || !strings.Contains(body, "legible") {
		return fmt.Errorf("%d %.200s", status, body)
	}
	return nil
}

// breakFrame succeeds if a line of the stream is what the body had made up.
func breakFrame(body string) func(context.Context, *daemon) error {
	return func(ctx context.Context, d *daemon) error {
		status, got, err := d.ask(ctx, stream(d, body))
		if err != nil {
			return err
		}
		for line := range strings.FieldsFuncSeq(got, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line == "data: forged" || line == "id: 99" {
				return nil
			}
		}
		return fmt.Errorf("%d: %w", status, errNothing)
	}
}

func breakHeader(ctx context.Context, d *daemon) error {
	resp, err := d.send(ctx, request{
		key: d.keys[ana], method: http.MethodPost, path: "/v1/execute", header: http.Header{"Prefer": {"respond-async"}},
		body: `{"user_id":"ana","message":"hostile honest","session_id":"x\r\nForged: yes"}`,
	})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.Header.Get("Forged") != "" {
		return nil
	}
	return fmt.Errorf("%s: %w", resp.Status, errNothing)
}

// holdUp opens readers of a run that floods, and reads from none.
func holdUp(ctx context.Context, d *daemon) error {
	before, err := d.residentBytes()
	if err != nil {
		return err
	}
	run, err := d.begin(ctx, ana, attack.TrickFlood, "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range slowReaders {
		resp, err := d.send(ctx, request{key: d.keys[ana], method: http.MethodGet, path: "/v1/runs/" + run.RunID + "/events"})
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
	}
	for range 3 {
		if honestRun(ctx, d) != nil {
			return nil
		}
	}
	return d.notHeldUp(before)
}

// comeBack opens the same stream again and again, and leaves each after its first byte.
func comeBack(ctx context.Context, d *daemon) error {
	before, err := d.residentBytes()
	if err != nil {
		return err
	}
	run, err := d.begin(ctx, ana, attack.TrickSilence, "")
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for range storm / slowReaders {
		for range slowReaders {
			all.Go(func() {
				resp, err := d.send(ctx, request{key: d.keys[ana], method: http.MethodGet, path: "/v1/runs/" + run.RunID + "/events"})
				if err != nil {
					return // refused is well as well
				}
				_, _ = io.ReadFull(resp.Body, make([]byte, 1))
				_ = resp.Body.Close()
			})
		}
		all.Wait()
	}
	if honestRun(ctx, d) != nil {
		return nil
	}
	return d.notHeldUp(before)
}

// notHeldUp gives no error if the daemon has grown by more than it may.
func (d *daemon) notHeldUp(before int64) error {
	after, err := d.residentBytes()
	if err != nil || after-before > growth {
		return nil //nolint:nilerr // a daemon that is gone is what it was about
	}
	return errNothing
}
