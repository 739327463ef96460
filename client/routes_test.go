package client

import (
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"carrel/internal/httpapi"
	"carrel/protocol"
)

// drain walks over an iterator to its end.
func drain[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// readAll reads what a method opened.
func readAll(content io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, content)
	return errors.Join(err, content.Close())
}

func fails[T any](_ T, err error) error { return err }

// reaching calls, for each route, every method that leads to it. In a path, {user_id}
// is "user_id", and {path...} "path/path".
func reaching(c *Client, t *testing.T) map[string][]func() error {
	t.Helper()
	ctx := t.Context()
	command := protocol.ExecRequest{Command: protocol.Command{Shell: "x"}}
	sink := func(protocol.EventType, protocol.ExecOutput) error { return nil }
	const user, run, file, session = "user_id", "run_id", "path/path", "session_id"
	content := func() io.Reader { return strings.NewReader("x") }
	return map[string][]func() error{
		"POST /v1/execute": {
			func() error { return fails(c.Execute(ctx, protocol.ExecuteRequest{}, ExecuteOptions{})) },
			func() error { return drain(c.ExecuteStream(ctx, protocol.ExecuteRequest{}, ExecuteOptions{})) },
		},
		"GET /v1/runs": {func() error {
			return drain(c.Runs(ctx, protocol.RunQuery{UserID: "u", SessionID: "s", Status: protocol.StatusFailed, Limit: 1, Cursor: "c"}))
		}},
		"GET /v1/runs/{run_id}":         {func() error { return fails(c.Run(ctx, run)) }},
		"GET /v1/runs/{run_id}/events":  {func() error { return drain(c.Events(ctx, run, 1)) }},
		"POST /v1/runs/{run_id}/cancel": {func() error { return fails(c.Cancel(ctx, run)) }},
		"POST /v1/runs/{run_id}/approvals/{approval_id}": {func() error {
			return c.Approve(ctx, run, "approval_id", protocol.ApprovalDecision{Decision: protocol.Allow})
		}},
		"POST /v1/users/{user_id}/exec": {
			func() error { return fails(c.Exec(ctx, user, command)) },
			func() error { return fails(c.ExecStream(ctx, user, command, sink)) },
		},
		"POST /v1/users/{user_id}/attachments": {func() error {
			return fails(c.Attach(ctx, user, Upload{Name: "n", Type: "text/plain", Content: content(), Bytes: 1}))
		}},
		"GET /v1/users/{user_id}/files": {
			func() error { return fails(c.ListFiles(ctx, user, "", "c")) },
			func() error { return drain(c.Files(ctx, user, "", 1)) },
			func() error { return readAll(c.GetArchive(ctx, user, "")) },
		},
		"PUT /v1/users/{user_id}/files": {func() error { return fails(c.PutArchive(ctx, user, "", content())) }},
		"GET /v1/users/{user_id}/files/{path...}": {
			func() error { return fails(c.ListFiles(ctx, user, file, "c")) },
			func() error { return drain(c.Files(ctx, user, file, 1)) },
			func() error { return readAll(c.GetArchive(ctx, user, file)) },
			func() error { f, err := c.OpenFile(ctx, user, file, OpenOptions{ETag: `"e"`}); return readAll(f, err) },
			func() error { f, _, err := c.GetFile(ctx, user, file); return readAll(f, err) },
		},
		"PUT /v1/users/{user_id}/files/{path...}": {
			func() error { return fails(c.PutFile(ctx, user, file, content(), 1)) },
			func() error {
				_, _, err := c.PutFileIf(ctx, user, file, content(), 1, Condition{Absent: true})
				return err
			},
			func() error { return fails(c.PutArchive(ctx, user, file, content())) },
		},
		"DELETE /v1/users/{user_id}/files/{path...}": {
			func() error { return c.DeleteFile(ctx, user, file) },
			func() error { return c.DeleteFileIf(ctx, user, file, Condition{ETag: `"e"`}) },
		},
		"GET /v1/users/{user_id}/sessions":                    {func() error { return fails(c.Sessions(ctx, user)) }},
		"GET /v1/users/{user_id}/sessions/{session_id}":       {func() error { return fails(c.Session(ctx, user, session)) }},
		"DELETE /v1/users/{user_id}/sessions/{session_id}":    {func() error { return c.DeleteSession(ctx, user, session) }},
		"POST /v1/users/{user_id}/sessions/{session_id}/fork": {func() error { return fails(c.ForkSession(ctx, user, session, "new")) }},
		"GET /v1/sandboxes":                                   {func() error { return fails(c.Sandboxes(ctx)) }},
		"GET /v1/users/{user_id}/sandbox":                     {func() error { return fails(c.Sandbox(ctx, user)) }},
		"DELETE /v1/users/{user_id}/sandbox": {
			func() error { return c.RetireSandbox(ctx, user) },
			func() error { return c.PurgeSandbox(ctx, user) },
		},
		"GET /v1/system":    {func() error { return fails(c.System(ctx)) }},
		"GET /healthz":      {func() error { return fails(c.Health(ctx)) }},
		"GET /readyz":       {func() error { return fails(c.Ready(ctx)) }},
		"GET /openapi.json": {func() error { return fails(c.OpenAPI(ctx)) }},
		"GET /metrics":      {func() error { return readAll(c.Metrics(ctx)) }},
	}
}

// answerOf is an answer that the method behind a request is content with.
func answerOf(r *http.Request) (mediaType, body string) {
	switch accept := r.Header.Get("Accept"); {
	case accept == eventStream && strings.HasSuffix(r.URL.Path, "/exec"):
		return eventStream, "event: EXIT\ndata: {}\n\n"
	case accept == eventStream && r.Method == http.MethodPost:
		return eventStream, frames(1, 1, finished)
	case accept == eventStream:
		return eventStream, strings.ReplaceAll(frames(2, 2, finished), `"r"`, `"run_id"`)
	case accept == "application/json":
		return "application/json", "{}"
	}
	return "application/octet-stream", "x"
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A route that the client does not reach, a parameter of one that it never sends, and a
// row here without a route are faults.
func TestEveryRouteOfTheAPIIsReached(t *testing.T) {
	var seen []*http.Request
	c, err := New("http://carrel.test", Options{HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r)
		mediaType, body := answerOf(r)
		return &http.Response{
			StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {mediaType}}, Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	})}})
	if err != nil {
		t.Fatal(err)
	}
	rows := reaching(c, t)
	for _, route := range httpapi.Routes() {
		name := route.Method + " " + route.Pattern
		if name == "POST /v1/ag-ui" {
			continue // another protocol, which has clients of its own
		}
		calls, ok := rows[name]
		if delete(rows, name); !ok {
			t.Errorf("no method of the client reaches %s", name)
			continue
		}
		path := strings.NewReplacer("{path...}", "path/path", "{", "", "}", "").Replace(route.Pattern)
		sent := url.Values{}
		for i, call := range calls {
			seen = nil
			if err := call(); err != nil {
				t.Errorf("%s, method %d: %v", name, i, err)
			}
			if len(seen) != 1 || seen[0].Method != route.Method || seen[0].URL.EscapedPath() != path {
				t.Fatalf("%s, method %d sent %v", name, i, seen)
			}
			for parameter := range seen[0].URL.Query() {
				sent.Add(parameter, "")
				if !slices.Contains(route.Query, parameter) {
					t.Errorf("%s, method %d sends the parameter %q, which the daemon refuses", name, i, parameter)
				}
			}
		}
		for _, parameter := range route.Query {
			if !sent.Has(parameter) {
				t.Errorf("%s: no method sends the parameter %q", name, parameter)
			}
		}
	}
	for name := range rows {
		t.Errorf("%s is no route", name)
	}
}
