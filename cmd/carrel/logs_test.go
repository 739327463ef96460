package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"carrel/protocol"
)

// What run shows of a run, logs shows of it afterwards, and ends as it did.
func TestLogsShowsWhatRunHasShown(t *testing.T) {
	d := serve(t, t.TempDir())
	env := environment(t.TempDir())
	for _, c := range []struct {
		name, message string
		args          []string
		status        int
	}{
		{"well", "echo out; echo err >&2", nil, 0},
		{"script that fails", "echo out; exit 3", nil, 3},
		{"as JSON", "echo out; exit 4", []string{"--json"}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, status := command(t, env, append([]string{"run", "--url", d.url, "--user", "ana", c.message}, c.args...)...)
			page, err := d.client.RunPage(t.Context(), protocol.RunQuery{Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			for _, follow := range [][]string{nil, {"--follow"}} {
				again, errAgain, statusAgain := command(t, env, append(append([]string{"logs", "--url", d.url, page.Runs[0].RunID}, c.args...), follow...)...)
				if again != stdout || errAgain != stderr || statusAgain != status || status != c.status {
					t.Errorf("run: %d, %q, %q\nlogs %s: %d, %q, %q", status, stdout, stderr, follow, statusAgain, again, errAgain)
				}
			}
		})
	}
	run := d.start("ana", "echo going; sleep 1000", "going")
	stdout, stderr, status := command(t, env, "logs", "--url", d.url, run.RunID)
	if stdout != "going\n" || !strings.Contains(stderr, "the run is running; --follow goes on with it") || status != 0 {
		t.Errorf("of a going run: status %d, %q, %q", status, stdout, stderr)
	}
	if _, err := d.client.Cancel(t.Context(), run.RunID); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status = command(t, env, "logs", "--url", d.url, "-f", run.RunID)
	if stdout != "going\n" || !strings.Contains(stderr, "canceled") || status != 1 {
		t.Errorf("of a canceled run: status %d, %q, %q", status, stdout, stderr)
	}
	last := d.events(run.RunID, 0)
	after := fmt.Sprint(len(last) - 1)
	stdout, _, status = command(t, env, "logs", "--url", d.url, "--json", "--after", after, run.RunID)
	var ev protocol.Event
	if err := json.Unmarshal([]byte(stdout), &ev); err != nil || ev.Type != protocol.EventRunError || status != 1 {
		t.Errorf("--after %s: status %d, %v, %q", after, status, err, stdout)
	}
	for _, follow := range [][]string{nil, {"--follow"}} {
		if stdout, _, status = command(t, env, append([]string{"logs", "--url", d.url, "--after", "1000", run.RunID}, follow...)...); stdout != "" || status != 1 {
			t.Errorf("after its end %s: status %d, %q", follow, status, stdout)
		}
	}
	d.stop()
}

func TestLogsListsTheNewestRuns(t *testing.T) {
	d := serve(t, t.TempDir())
	env := environment(t.TempDir())
	d.script("ana", "true")
	d.script("bob", "true")
	d.script("ana", "false")
	stdout, _, status := command(t, env, "logs", "--url", d.url, "--user", "ana", "--limit", "1")
	if lines := strings.Split(strings.TrimSpace(stdout), "\n"); status != 0 || len(lines) != 2 || !strings.Contains(lines[1], "  ana  ") {
		t.Errorf("status %d:\n%s", status, stdout)
	}
	stdout, _, status = command(t, env, "logs", "--url", d.url, "--json")
	var users []string
	for line := range strings.Lines(stdout) {
		var run protocol.Run
		if err := json.Unmarshal([]byte(line), &run); err != nil {
			t.Fatal(err)
		}
		users = append(users, run.UserID)
	}
	if status != 0 || fmt.Sprint(users) != "[ana bob ana]" {
		t.Errorf("status %d, %v", status, users)
	}
	for _, args := range [][]string{{"--after=-1", "run_1"}, {"--limit=0"}, {"--limit=201"}, {"--follow"}} {
		if _, stderr, status := command(t, env, append([]string{"logs", "--url", d.url}, args...)...); status != 2 || !strings.Contains(stderr, "--") {
			t.Errorf("%s: status %d, %s", args, status, stderr)
		}
	}
	if _, stderr, status := command(t, env, "logs", "--url", d.url, "run_none"); status != 1 || !strings.Contains(stderr, "not_found") {
		t.Errorf("of no run: status %d, %s", status, stderr)
	}
	d.stop()
}
