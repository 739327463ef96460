package webhook

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"carrel/protocol"
)

func TestOnlyTheFilesURLsArePostedTo(t *testing.T) {
	var got protocol.HookParams
	posts := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posts++
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.Path != "/hook" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(`{"decision":"deny","reason":"no","later":1}`))
	}))
	defer server.Close()
	c, err := New([]protocol.Hook{
		{Event: protocol.HookStop, Command: &protocol.Command{Shell: "x"}},
		{Event: protocol.HookBeforeTool, Webhook: server.URL + "/hook?token=secret"},
	}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Call(t.Context(), "ana", protocol.HookParams{Hook: 1, Event: protocol.HookBeforeTool, RunID: "run_1", Tool: "bash", UserID: "somebody else"})
	if err != nil || r.Decision != "deny" || r.Reason != "no" {
		t.Errorf("%+v %v", r, err)
	}
	if got.UserID != "ana" || got.Tool != "bash" || got.RunID != "run_1" {
		t.Errorf("the webhook was told %+v", got)
	}
	for _, p := range []protocol.HookParams{{Hook: 0, Event: protocol.HookStop}, {Hook: 2}, {Hook: -1}, {Hook: 1, Event: protocol.HookStop}} {
		if _, err := c.Call(t.Context(), "ana", p); protocol.CodeOf(err) != protocol.CodeNotFound {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if posts != 1 {
		t.Errorf("%d posts", posts)
	}
}

func TestAnswerThatIsNoneIsAnErrorWithoutTheURL(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine")) },
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", 2<<20) + "{}"))
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{}`))
		},
		"no answer in time": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then does the server see that the caller is gone
			<-r.Context().Done()
		},
		"closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			c, err := New([]protocol.Hook{{Event: protocol.HookPrompt, Webhook: server.URL + "/?token=secret", TimeoutSeconds: 0.2}}, slog.New(slog.DiscardHandler), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r, err := c.Call(t.Context(), "ana", protocol.HookParams{Event: protocol.HookPrompt})
			if protocol.CodeOf(err) != protocol.CodeAgentError || strings.Contains(err.Error(), "secret") {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
}

func TestURLsAreChecked(t *testing.T) {
	for _, u := range []string{"ftp://x/y", "x", "http://", "://", "file:///etc/passwd", "http://[::1"} {
		if _, err := New([]protocol.Hook{{Event: protocol.HookPrompt, Webhook: u}}, slog.New(slog.DiscardHandler), nil); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
}

func TestNoContentIsNoObjection(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer server.Close()
	c, err := New([]protocol.Hook{{Event: protocol.HookPrompt, Webhook: server.URL}}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r, err := c.Call(t.Context(), "ana", protocol.HookParams{Event: protocol.HookPrompt}); err != nil || r.Decision != "" {
		t.Errorf("%+v %v", r, err)
	}
}

// A worker that hears where a connection was refused knows the webhook's address.
func TestWorkerIsNotToldWhereAWebhookIs(t *testing.T) {
	var config net.ListenConfig
	line, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := line.Addr().String()
	_ = line.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("{"))
		panic(http.ErrAbortHandler)
	}))
	defer cut.Close()
	for name, to := range map[string]string{"refused": "http://" + address, "unknown": "http://policy.invalid", "cut": cut.URL} {
		var logged strings.Builder
		c, err := New([]protocol.Hook{{Event: protocol.HookStop, Webhook: to + "/?token=secret"}}, slog.New(slog.NewTextHandler(&logged, nil)), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Call(t.Context(), "ana", protocol.HookParams{Event: protocol.HookStop})
		c.Close()
		if want := "webhook 0: " + errNoAnswer.Error(); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q alone", name, err, want)
		}
		if text := logged.String(); text == "" || strings.Contains(text, "secret") {
			t.Errorf("%s: the log has %q", name, text)
		}
	}
}
