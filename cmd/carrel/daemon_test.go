package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"carrel/client"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// canary is a secret of the daemon's: it must be found nowhere else.
const canary = ordeal.Canary

func program(t *testing.T) string { return ordeal.Program(t, "carrel") }

func environment(baseDir string, more ...string) []string {
	return ordeal.Environment(baseDir, more...)
}

// daemon is a running `carrel serve`, with the short words of these tests.
type daemon struct {
	*ordeal.Daemon

	t      *testing.T
	cmd    *exec.Cmd
	url    string
	client *client.Client
	http   *http.Client // as client, it checks what is answered
	log    *ordeal.Log
}

func serve(t *testing.T, baseDir string, more ...string) *daemon {
	t.Helper()
	return watch(t, ordeal.Serve(t, baseDir, more...))
}

// watch holds what a daemon answers against the OpenAPI document.
func watch(t *testing.T, d *ordeal.Daemon) *daemon {
	t.Helper()
	plain, c := checkedClients(t, d.URL, "")
	return &daemon{Daemon: d, t: t, cmd: d.Cmd, url: d.URL, client: c, http: plain, log: d.Log}
}

func (d *daemon) stop() {
	d.t.Helper()
	d.Stop()
}

func (d *daemon) tree() []int { return d.Tree() }

// script runs a message of a user and returns its result.
func (d *daemon) script(user, message string) protocol.Result {
	d.t.Helper()
	body, err := json.Marshal(protocol.ExecuteRequest{UserID: user, Message: message})
	if err != nil {
		d.t.Fatal(err)
	}
	status, answer := d.post("/v1/execute", string(body), nil)
	var result protocol.Result
	if err := json.Unmarshal(answer, &result); err != nil || status != http.StatusOK {
		d.t.Fatalf("execute for %q: status %d, %s", user, status, answer)
	}
	return result
}

// start sets a run going and waits until text of it has come.
func (d *daemon) start(user, message, text string) protocol.Run {
	d.t.Helper()
	run, err := d.client.Execute(d.t.Context(), protocol.ExecuteRequest{UserID: user, Message: message}, client.ExecuteOptions{})
	if err != nil {
		d.t.Fatal(err)
	}
	for ev, err := range d.client.Events(d.t.Context(), run.RunID, 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		if strings.Contains(string(ev.Data), text) {
			return run
		}
	}
	d.t.Fatalf("run %s ended without %q", run.RunID, text)
	return run
}

// events reads a run to its end and checks that seqs have no gap.
func (d *daemon) events(runID string, after int64) []protocol.Event {
	d.t.Helper()
	var events []protocol.Event
	for ev, err := range d.client.Events(d.t.Context(), runID, after) {
		if err != nil {
			d.t.Fatal(err)
		}
		if want := after + int64(len(events)) + 1; ev.Seq != want {
			d.t.Fatalf("run %s: seq %d where %d belongs", runID, ev.Seq, want)
		}
		events = append(events, ev)
	}
	return events
}

// ending is the RUN_ERROR that a run ended with.
func (d *daemon) ending(runID string) protocol.RunError {
	d.t.Helper()
	events := d.events(runID, 0)
	if len(events) == 0 || events[len(events)-1].Type != protocol.EventRunError {
		d.t.Fatalf("run %s did not end in an error: %v", runID, events)
	}
	var e protocol.RunError
	if err := json.Unmarshal(events[len(events)-1].Data, &e); err != nil {
		d.t.Fatal(err)
	}
	return e
}

func (d *daemon) post(path, body string, header http.Header) (int, []byte) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	maps.Copy(req.Header, header)
	return d.do(req)
}

func (d *daemon) get(path string, header http.Header) (int, []byte) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.url+path, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	return d.do(req)
}

func (d *daemon) do(req *http.Request) (int, []byte) {
	d.t.Helper()
	resp, err := d.http.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, body
}

// command runs the command line to its end.
func command(t *testing.T, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Env = env
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}
