package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carrel/protocol"
)

func TestPsShowsSandboxesAndGoingRuns(t *testing.T) {
	const user = "ana  idle\u202e1" // the API takes it for a user id
	d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=0")
	d.script("bob", "true")
	run := d.start(user, "echo going; sleep 1000", "going")
	stdout, stderr, status := command(t, environment(t.TempDir()), "ps", "--url", d.url, "--runs")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	lines := strings.Split(stdout, "\n")
	for i, want := range []string{"USER ", `"ana  idle\u202e1"  busy   `, "bob ", "2 sandboxes, 0 of them warm; 0 runs wait for one", "", "RUN ", run.RunID + `  "ana  idle\u202e1"`} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d is %q, want %q", i, lines[i], want)
		}
	}
	if a, b := strings.Index(lines[1], "busy"), strings.Index(lines[2], "idle"); a != b || a != strings.Index(lines[0], "STATE") {
		t.Errorf("the columns are not aligned:\n%s", stdout)
	}
	stdout, _, status = command(t, environment(t.TempDir()), "ps", "--url", d.url, "--runs", "--json")
	var got pool
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || status != 0 {
		t.Fatalf("status %d, %v: %s", status, err, stdout)
	}
	if len(got.Sandboxes.Sandboxes) != 2 || len(got.Runs) != 1 || got.Runs[0].UserID != user {
		t.Errorf("%s", stdout)
	}
	d.stop()
}

func TestWithoutADaemonItIsSaidHowToHaveOne(t *testing.T) {
	for _, args := range [][]string{{"ps"}, {"logs"}, {"logs", "run_1"}} {
		// Nobody listens on port 1 of loopback.
		_, stderr, status := command(t, environment(t.TempDir()), append(args, "--url", "http://127.0.0.1:1")...)
		if status != 1 || !strings.Contains(stderr, "no daemon at http://127.0.0.1:1: start one by carrel serve, or name it by --url") {
			t.Errorf("%s: status %d, %q", args, status, stderr)
		}
	}
}

func TestCellIsOneWordAndHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"ana": "ana", "": "-", "-": `"-"`, "a b": `"a b"`, " a": `" a"`, "a\nb": `"a\nb"`, "a\u202eb": `a\u202eb`, `a\u202eb`: `"a\\u202eb"`,
		"a\u00a0b": `"a\u00a0b"`, "\x1b[2J": `\u001b[2J`, "張": "張", "a\xffb": "a\ufffdb",
		strings.Repeat("u", 300): strings.Repeat("u", maxCell) + "…",
	} {
		if got := cell(text); got != want {
			t.Errorf("%q is shown as %s, want %s", text, got, want)
		}
	}
}

func TestSpanHasTwoUnitsAtMost(t *testing.T) {
	for _, c := range []struct {
		length time.Duration
		want   string
	}{
		{-time.Second, "0.0s"},
		{1250 * time.Millisecond, "1.2s"},
		{59 * time.Second, "59s"},
		{61 * time.Second, "1m01s"},
		{2*time.Hour + 5*time.Minute, "2h05m"},
		{75*time.Hour + time.Second, "3d03h"},
	} {
		if got := span(c.length); got != c.want {
			t.Errorf("%s is shown as %s, want %s", c.length, got, c.want)
		}
	}
}

func TestRunThatFailedIsShownWithItsCode(t *testing.T) {
	var shown strings.Builder
	began := time.Now().Add(-time.Minute)
	ended := began.Add(3 * time.Second)
	runs := []protocol.Run{
		{RunID: "run_1", Status: protocol.StatusFailed, Error: &protocol.RunError{Code: protocol.CodeRunTimeout}, CreatedAt: began, EndedAt: &ended},
		{RunID: "run_2", Status: protocol.StatusCanceled, Error: &protocol.RunError{Code: protocol.CodeCanceled}, CreatedAt: began},
	}
	if err := printRuns(&shown, runs, began.Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(shown.String(), "\n")
	if !strings.Contains(lines[1], "run_timeout") || !strings.HasSuffix(lines[1], "3.0s") || !strings.Contains(lines[2], "canceled") || !strings.HasSuffix(lines[2], "10s") {
		t.Error(shown.String())
	}
}
