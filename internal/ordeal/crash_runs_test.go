package ordeal

import (
	"context"
	"database/sql" //nolint:depguard // the rows themselves, read without the store's code
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" //nolint:depguard // as above

	"carrel/client"
	"carrel/protocol"
)

// kind is one kind of run. What its message prints is known beforehand, so that a
// run which finished can be held against it.
type kind struct {
	name    string
	message string
	output  string
	exit    int
	cancel  bool // it goes on for ever, and is canceled once its output has come
}

//nolint:gochecknoglobals // a table
var echoes = kind{
	name:    "echoes",
	message: `i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; [ $((i % 30)) != 0 ] || sleep 0.02; done`,
	output:  numbered(300),
}

//nolint:gochecknoglobals // a table
var kinds = []kind{
	echoes,
	{name: "sleeper", message: "sleep 0.4; echo slept", output: "slept\n"},
	{name: "failing script", message: "echo broken; exit 3", output: "broken\n", exit: 3},
	{name: "forker", message: "for i in 1 2 3 4 5; do (setsid sleep 1000 &); sleep 1000 & done; echo forked", output: "forked\n"},
	{name: "big output", message: `head -c 1500000 /dev/zero | tr '\0' x`, output: strings.Repeat("x", 1500000)},
	{name: "file", message: "echo kept > $SANDBOX_SESSION_ID; cat $SANDBOX_SESSION_ID", output: "kept\n"},
	{name: "canceled", message: "echo going; sleep 1000", output: "going\n", cancel: true},
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i+1)
	}
	return b.String()
}

// sighting is what a client saw of a run that was acknowledged.
type sighting struct {
	kind   kind
	events []protocol.Event // seq from 1
}

// do makes the i-th run, or an exec.
func (s *storm) do(ctx context.Context, i int) {
	random := rand.New(rand.NewPCG(s.seed, uint64(i)))
	if n := random.IntN(len(kinds) + 1); n < len(kinds) {
		s.witness(ctx, i, kinds[n])
		return
	}
	result, err := s.client.Exec(ctx, user(i), protocol.ExecRequest{Command: protocol.Command{Shell: "echo out; exit 4"}})
	switch {
	case err == nil && (result.ExitCode != 4 || result.Stdout != "out\n"):
		s.t.Errorf("exec: %+v", result)
	case err == nil:
		s.tally("exec: answered")
	default:
		s.tally("exec: " + codeOf(err))
	}
}

func user(i int) string { return fmt.Sprintf("user-%02d", (i+stormUsers)%stormUsers) }

// codeOf is an error's code; "cut off" for a connection that was.
func codeOf(err error) string {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return string(e.Code)
	}
	return "cut off"
}

// witness starts a run, as often as it takes to be acknowledged, and follows it to
// its ending.
func (s *storm) witness(ctx context.Context, i int, k kind) {
	req := protocol.ExecuteRequest{UserID: user(i), Message: k.message, Config: protocol.RunConfig{TimeoutSeconds: 60}}
	var run protocol.Run
	if !s.insist(ctx, "execute", func() (err error) {
		run, err = s.client.Execute(ctx, req, client.ExecuteOptions{IdempotencyKey: fmt.Sprintf("%d-%d", s.seed, i)})
		return err
	}) {
		return
	}
	saw := &sighting{kind: k}
	s.mu.Lock()
	if s.seen[run.RunID] != nil {
		s.t.Errorf("run %s was given to two requests", run.RunID)
	}
	s.seen[run.RunID] = saw
	s.mu.Unlock()
	s.tally("run: " + k.name)
	s.step()
	defer s.step()
	s.follow(ctx, run.RunID, saw, rand.New(rand.NewPCG(s.seed, uint64(i))))
}

// insist repeats a request that changes nothing when it is repeated, until a daemon
// has answered it.
func (s *storm) insist(ctx context.Context, what string, ask func() error) bool {
	for ctx.Err() == nil {
		err := ask()
		if err == nil {
			return true
		}
		if code := codeOf(err); code != "cut off" {
			s.t.Errorf("%s: %v", what, err)
			return false
		}
		s.tally(what + ": cut off, asked again")
		wait := time.NewTimer(20 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
	return false
}

// follow reads a run's events, now and then going away and coming back with the
// number of the last one; what a daemon's death cuts off, the client itself resumes.
func (s *storm) follow(ctx context.Context, runID string, saw *sighting, random *rand.Rand) {
	canceled := !saw.kind.cancel
	for {
		leave := len(saw.events) + 1 + random.IntN(40)
		for ev, err := range s.client.Events(ctx, runID, int64(len(saw.events))) {
			if err != nil {
				if ctx.Err() == nil {
					s.t.Errorf("events of an acknowledged run: %v", err)
				}
				return
			}
			saw.events = append(saw.events, ev)
			if ev.Type.Ends() {
				return
			}
			if !canceled && strings.Contains(string(ev.Data), "going") {
				canceled = true
				s.insist(ctx, "cancel", func() error { _, err := s.client.Cancel(ctx, runID); return err })
			}
			if len(saw.events) == leave {
				break
			}
		}
		if len(saw.events) < leave {
			s.t.Errorf("run %s: the events stop after %d, without an ending", runID, len(saw.events))
			return
		}
		s.tally("reader: came back")
	}
}

// ended checks what the clients saw: how each run ended, and that what finished is
// whole.
func (s *storm) ended() {
	for runID, saw := range s.seen {
		if len(saw.events) == 0 {
			continue // told already
		}
		last := saw.events[len(saw.events)-1]
		switch last.Type { //nolint:exhaustive // the two endings
		case protocol.EventRunFinished:
			s.tallies["ending: finished"]++
			s.finished(runID, saw, last)
		case protocol.EventRunError:
			var e protocol.RunError
			if err := json.Unmarshal(last.Data, &e); err != nil {
				s.t.Errorf("run %s: %v", runID, err)
			}
			s.tallies["ending: "+string(e.Code)]++
			switch e.Code { // those that kills and cancels may bring
			case protocol.CodeCanceled:
				if !saw.kind.cancel {
					s.t.Errorf("run %s (%s) was canceled by nobody", runID, saw.kind.name)
				}
			case protocol.CodeInterrupted, protocol.CodeWorkerCrashed, protocol.CodeAgentError, protocol.CodeWorkerStartFailed:
			default:
				s.t.Errorf("run %s (%s) ended with %+v", runID, saw.kind.name, e)
			}
		}
	}
}

func (s *storm) finished(runID string, saw *sighting, last protocol.Event) {
	var result protocol.Result
	if err := json.Unmarshal(last.Data, &result); err != nil {
		s.t.Errorf("run %s: %v", runID, err)
		return
	}
	var output strings.Builder
	for _, ev := range saw.events {
		if ev.Type == protocol.EventTextDelta {
			var delta protocol.TextDelta
			if err := json.Unmarshal(ev.Data, &delta); err != nil {
				s.t.Errorf("run %s: %v", runID, err)
			}
			output.WriteString(delta.Text)
		}
	}
	if output.String() != saw.kind.output || result.ExitCode == nil || *result.ExitCode != saw.kind.exit {
		s.t.Errorf("run %s (%s) finished with %d bytes of output, %+v", runID, saw.kind.name, output.Len(), result)
	}
}

// recordHolds reads every run again from its beginning.
func (s *storm) recordHolds() {
	ctx := s.t.Context()
	for runID, saw := range s.seen {
		var record []protocol.Event
		for ev, err := range s.client.Events(ctx, runID, 0) {
			if err != nil {
				s.t.Errorf("replay: %v", err)
			}
			record = append(record, ev)
		}
		if len(record) != len(saw.events) {
			s.t.Errorf("run %s: %d events were seen, %d are in the record", runID, len(saw.events), len(record))
			continue
		}
		for i, ev := range record {
			was := saw.events[i]
			s.tallies["event: seen and kept"]++
			if ev.Seq != int64(i)+1 || was.Seq != ev.Seq || was.Type != ev.Type || !was.Time.Equal(ev.Time) || string(was.Data) != string(ev.Data) {
				s.t.Errorf("run %s: event %d was seen as %v and is kept as %v", runID, i+1, was, ev)
			}
		}
		run, err := s.client.Run(ctx, runID)
		if err != nil || !run.Status.Ended() || run.LastSeq != int64(len(record)) {
			s.t.Errorf("run %s stands as %q with last_seq %d of %d, %v", runID, run.Status, run.LastSeq, len(record), err)
		}
	}
}

// databaseHolds looks at the rows themselves: each run once, numbered from 1 without
// gaps, with one ending, which is its last event.
func (s *storm) databaseHolds() {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.base, "carrel.db")+"?mode=ro")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(s.t.Context(), `SELECT r.run_id, r.status, r.last_seq, count(e.seq), coalesce(max(e.seq), 0),
		coalesce(sum(e.type IN ('RUN_FINISHED', 'RUN_ERROR')), 0),
		coalesce(max(CASE WHEN e.type IN ('RUN_FINISHED', 'RUN_ERROR') THEN e.seq END), 0)
		FROM runs r LEFT JOIN events e ON e.run = r.id GROUP BY r.id`)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var runID, status string
		var last, count, highest, endings, ending int64
		if err := rows.Scan(&runID, &status, &last, &count, &highest, &endings, &ending); err != nil {
			s.t.Fatal(err)
		}
		s.tallies["database: runs"]++
		if s.seen[runID] == nil {
			s.t.Errorf("run %s is in the database, but nobody was told of it", runID)
		}
		if endings != 1 || ending != last || highest != last || count != last || !protocol.RunStatus(status).Ended() {
			s.t.Errorf("run %s is %q: last_seq %d, %d events up to %d, %d endings, at %d", runID, status, last, count, highest, endings, ending)
		}
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	if got := s.tallies["database: runs"]; got != len(s.seen) {
		s.t.Errorf("%d runs were acknowledged, %d are in the database", len(s.seen), got)
	}
}
