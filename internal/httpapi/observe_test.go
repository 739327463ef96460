package httpapi

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/logline"
)

func TestEachRequestIsToldOfByItsRoute(t *testing.T) {
	var told []Answered
	h := New(newFake(), Options{Answered: func(_ context.Context, a Answered) { told = append(told, a) }})
	body := `{"user_id":"ana","message":"m"}`
	ask(t, h, http.MethodPost, "/v1/execute", body, "Prefer: respond-async")
	ask(t, h, http.MethodHead, "/v1/runs", "")
	ask(t, h, "EVIL", "/nowhere/ana", "")
	ask(t, h, http.MethodPut, "/v1/runs", "")
	want := []Answered{
		{Method: "POST", Pattern: "/v1/execute", Status: 202, ReceivedBytes: int64(len(body))},
		{Method: "HEAD", Pattern: "/v1/runs", Status: 200},
		{Method: "EVIL", Status: 404},
		{Method: "PUT", Status: 405},
	}
	for i := range told {
		if told[i].Took < 0 || told[i].SentBytes == 0 {
			t.Errorf("%+v", told[i])
		}
		told[i].Took, told[i].SentBytes = 0, 0
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
}

func TestEachRefusedSignInHasItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(map[SignInRefusal]int)
		h := New(newFake(), Options{
			Identify: identify, RateLimit: Rate{Requests: 1, Per: time.Hour},
			SignInRefused: func(r SignInRefusal) { told[r]++ },
		})
		from := func(key string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/runs", nil)
			if key != "" {
				r.Header.Set("Authorization", "Bearer "+key)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		from("")
		from("key-ana")
		from("key-ana")
		for i := range 12 {
			from("wrong-" + string(rune('a'+i)))
		}
		want := map[SignInRefusal]int{NoKey: 1, RateLimited: 1, WrongKey: 10, TooManyWrongKeys: 2}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRequestsLineHasTheUsersHashAndNoUser(t *testing.T) {
	var log bytes.Buffer
	h := New(newFake(), Options{Logger: logline.New(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))})
	for _, path := range []string{
		"/v1/users/zz1@example.org/sandbox", "/v1/users/zz1%40example.org/files/private", "/v1/users/zz1@example.org/nowhere", "/v1/users/zz1@example.org",
		"/users/zz1@example.org/sandbox", "/proxy/v1/users/zz1@example.org/sandbox", "//v1/users/zz1@example.org/sandbox",
		"/V1/Users/zz1@example.org/sandbox", "/v1/%75sers/zz1@example.org/nowhere", "/v1/user/zz1@example.org",
	} {
		ask(t, h, http.MethodDelete, path, "")
	}
	ask(t, h, http.MethodGet, "/nowhere", "")
	if text := log.String(); strings.Contains(text, "example.org") || strings.Contains(text, "private") {
		t.Errorf("the log names a user:\n%s", text)
	}
	if n := strings.Count(log.String(), "user="+logline.User("zz1@example.org")); n != 2 {
		t.Errorf("%d lines have the hash:\n%s", n, &log)
	}
	if !strings.Contains(log.String(), "path=/nowhere") {
		t.Errorf("a path that leads nowhere is not told:\n%s", &log)
	}
	log.Reset()
	ask(t, h, http.MethodPost, "/"+strings.Repeat("x", 64<<10), "")
	ask(t, h, strings.Repeat("X", 64<<10), "/", "")
	if log.Len() > 4<<10 {
		t.Errorf("two requests fill %d bytes of the log", log.Len())
	}
}

// Who has not signed in enters no trace.
func TestOnlyWhoHasSignedInEnters(t *testing.T) {
	var entered []string
	type mark struct{}
	var marked []bool
	h := New(newFake(), Options{
		Identify: identify,
		Entered: func(ctx context.Context, pattern string, h http.Header) context.Context {
			entered = append(entered, pattern+" "+h.Get("Traceparent"))
			return context.WithValue(ctx, mark{}, true)
		},
		Answered: func(ctx context.Context, _ Answered) { marked = append(marked, ctx.Value(mark{}) != nil) },
	})
	ask(t, h, http.MethodGet, "/v1/runs", "", "Traceparent: x")
	ask(t, h, http.MethodGet, "/v1/runs", "", bearerOf("key-wrong"), "Traceparent: x")
	ask(t, h, http.MethodGet, "/healthz", "", "Traceparent: x")
	ask(t, h, http.MethodGet, "/nowhere", "", bearerOf("key-ana"), "Traceparent: x")
	ask(t, h, http.MethodGet, "/v1/runs", "", bearerOf("key-ana"), "Traceparent: x")
	if diff := cmp.Diff([]string{"/v1/runs x"}, entered); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]bool{false, false, false, false, true}, marked); diff != "" {
		t.Error(diff)
	}
}
