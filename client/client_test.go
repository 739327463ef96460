package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func TestBadBaseURLIsRefused(t *testing.T) {
	for _, u := range []string{"", "localhost:8642", "ftp://x", "http://", "http://u:p@x", "http://x?a=b", "http://x#f", "http://[x", "unix:///x"} {
		if _, err := New(u, Options{}); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
}

func TestCallsSayWhatTheContractSays(t *testing.T) {
	type seen struct{ Method, URI, Prefer, Key, Auth, Body string }
	var got seen
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.RequestURI, r.Header.Get("Prefer"), r.Header.Get("Idempotency-Key"), r.Header.Get("Authorization"), string(body)}
		_, _ = io.WriteString(w, `{"run_id":"r","version":"v","warm":2,"stdout":"out"}`)
	}))
	defer server.Close()
	c, err := New(server.URL+"/prefix/", Options{Key: "k3y"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct {
		name string
		call func() (any, error)
		want seen
		out  any
	}{
		{
			"execute", func() (any, error) {
				return c.Execute(t.Context(), protocol.ExecuteRequest{UserID: "u", Message: "m"}, ExecuteOptions{IdempotencyKey: "i"})
			},
			seen{"POST", "/prefix/v1/execute", "respond-async", "i", "Bearer k3y", `{"user_id":"u","message":"m"}`},
			protocol.Run{RunID: "r"},
		},
		{"run", func() (any, error) { return c.Run(t.Context(), "r") }, seen{Method: "GET", URI: "/prefix/v1/runs/r"}, protocol.Run{RunID: "r"}},
		{"cancel", func() (any, error) { return c.Cancel(t.Context(), "r") }, seen{Method: "POST", URI: "/prefix/v1/runs/r/cancel"}, protocol.Run{RunID: "r"}},
		{"sandboxes", func() (any, error) { return c.Sandboxes(t.Context()) }, seen{Method: "GET", URI: "/prefix/v1/sandboxes"}, protocol.Sandboxes{Warm: 2}},
		{"system", func() (any, error) { return c.System(t.Context()) }, seen{Method: "GET", URI: "/prefix/v1/system"}, protocol.System{Version: "v"}},
		{
			"exec", func() (any, error) {
				return c.Exec(t.Context(), "a/b", protocol.ExecRequest{Command: protocol.Command{Shell: "x"}})
			},
			seen{Method: "POST", URI: "/prefix/v1/users/a%2Fb/exec", Body: `{"command":"x"}`},
			protocol.ExecResult{Stdout: "out"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := tt.call()
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Auth = "Bearer k3y"
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.out, out); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnyUserIDIsOneSegmentOfThePath(t *testing.T) {
	for id, want := range map[string]string{
		"u": "u", "a/b": "a%2Fb", ".": "%2E", "..": "%2E%2E", "...": "...", " x": "%20x", "%2F": "%252F", "?#": "%3F%23", "張": "%E5%BC%B5",
	} {
		d := &daemon{answers: []answer{jsonAnswer(`{}`)}}
		if _, err := newClient(t, d).Exec(t.Context(), id, protocol.ExecRequest{}); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"POST /v1/users/" + want + "/exec"}, d.requests); diff != "" {
			t.Errorf("%q: %s", id, diff)
		}
	}
}

func TestErrorAnswersAreErrorsWithACode(t *testing.T) {
	html := http.Header{"Content-Type": {"text/html"}}
	for _, tt := range []struct {
		name   string
		answer answer
		want   protocol.Error
	}{
		{"problem", problem(429, protocol.CodeQueueFull, `,"retry_after_s":1.5`), protocol.Error{Code: protocol.CodeQueueFull, Message: "d", RetryAfter: 1500 * time.Millisecond}},
		{"negative wait", problem(503, protocol.CodeShuttingDown, `,"retry_after_s":-1`), protocol.Error{Code: protocol.CodeShuttingDown, Message: "d"}},
		{"unknown code", problem(418, "teapot", ""), protocol.Error{Code: protocol.CodeInvalidRequest, Message: "GET http://carrel.test/v1/system: answered 418 I'm a teapot, which is no answer of carrel's"}},
		{"proxy", answer{status: 502, header: html, body: "<html>"}, protocol.Error{Code: protocol.CodeInternal, Message: "GET http://carrel.test/v1/system: answered 502 Bad Gateway, which is no answer of carrel's"}},
		{"forbidden by a proxy", answer{status: 403, header: html}, protocol.Error{Code: protocol.CodeForbidden, Message: "GET http://carrel.test/v1/system: answered 403 Forbidden, which is no answer of carrel's"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newClient(t, &daemon{answers: []answer{tt.answer}}).System(t.Context())
			e, ok := errors.AsType[*protocol.Error](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, *e); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	c, err := New(server.URL, Options{Key: "k3y"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Execute(t.Context(), protocol.ExecuteRequest{}, ExecuteOptions{}); err == nil || asked != 1 {
		t.Errorf("after %d requests: %v", asked, err)
	}
}

func TestKeyIsPrintedNowhere(t *testing.T) {
	const key = "v3ry-s3cret"
	c, err := New("http://x", Options{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := Options{Key: key}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&out, format+format+format, o, o.Key, c)
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"key": o.Key}); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", o.Key)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", o.Key)
	if s := out.String(); strings.Contains(s, key) || strings.Contains(s, fmt.Sprintf("%x", key)) {
		t.Errorf("the key stands in %s", s)
	}
}

func TestExecStreamGivesOutputAsItComes(t *testing.T) {
	const out = "event: STDOUT\ndata: {\"text\":\"a\\n\"}\n\nevent: STDERR\ndata: {\"text\":\"b\"}\n\n"
	const exit = "event: EXIT\ndata: {\"exit_code\":3}\n\n"
	for _, tt := range []struct {
		name    string
		answer  answer
		sinkErr error
		want    string
		code    int
		err     string
	}{
		{"whole", answer{body: ": keep-alive\n\n" + out + "event: LATER\ndata: x\n\n" + exit}, nil, "STDOUT a\nSTDERR b", 3, ""},
		{"ended early", answer{body: out}, nil, "STDOUT a\nSTDERR b", 0, "the stream ended before the command did"},
		{"cut", answer{body: out, bodyErr: io.ErrUnexpectedEOF}, nil, "STDOUT a\nSTDERR b", 0, "unexpected EOF"},
		{"daemon says why", answer{body: out + ": error run_timeout: too long\n\n"}, nil, "STDOUT a\nSTDERR b", 0, "run_timeout: too long"},
		{"daemon says something", answer{body: out + ": error zzz: y\n\n"}, nil, "STDOUT a\nSTDERR b", 0, "did: zzz: y"},
		{"sink has enough", answer{body: out + exit, silent: true}, errors.New("full"), "STDOUT a\n", 0, "full"},
		{"never started", problem(429, protocol.CodeQueueFull, ""), nil, "", 0, "queue_full: d"},
		{"no stream", jsonAnswer("{}"), nil, "", 0, "not an event stream"},
		{"no JSON", answer{body: "event: STDOUT\ndata: x\n\n"}, nil, "", 0, "decode STDOUT"},
		{"exit that is no JSON", answer{body: "event: EXIT\ndata: x\n\n"}, nil, "", 0, "decode EXIT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			d := &daemon{answers: []answer{tt.answer}}
			res, err := newClient(t, d).ExecStream(t.Context(), "u", protocol.ExecRequest{}, func(k protocol.EventType, o protocol.ExecOutput) error {
				got.WriteString(string(k) + " " + o.Text)
				return tt.sinkErr
			})
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if got.String() != tt.want || res.ExitCode != tt.code || len(d.requests) != 1 {
				t.Errorf("output %q, exit %d, %d requests", got.String(), res.ExitCode, len(d.requests))
			}
		})
	}
}
