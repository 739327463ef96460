package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// keys of the tests, by what is presented.
func identify(key string) (Caller, bool) {
	caller, ok := map[string]Caller{
		"key-admin": {Name: "product", Admin: true},
		"key-ana":   {Name: "ana-phone", User: "ana"},
		"key-bob":   {Name: "bob-phone", User: "bob"},
		"key-zero":  {}, // as a mistake would make it
	}[key]
	return caller, ok
}

func bearerOf(key string) string { return "Authorization: Bearer " + key }

// untouched fails if the service was asked for anything that a caller must not.
func untouched(t *testing.T, f *fakeService, what string) {
	t.Helper()
	if n := len(f.submissions) + len(f.queries) + len(f.users) + len(f.purged) + len(f.decided) + f.calls; n > 0 {
		t.Errorf("%s: the service was asked %d times", what, n)
	}
}

// Every route, with every kind of caller. A route whose rule this test does not know
// fails it, and so does one that has none.
func TestEveryRouteLetsInWhomItsRuleNamesAndNobodyElse(t *testing.T) {
	bodies := map[string]string{
		"/v1/execute":              `{"user_id":"ana","message":"m"}`,
		"/v1/ag-ui":                `{"threadId":"s","runId":"r","messages":[{"id":"1","role":"user","content":"m"}]}`,
		"/v1/users/{user_id}/exec": `{"command":["true"]}`,

		"/v1/runs/{run_id}/approvals/{approval_id}": `{"decision":"allow"}`,
		"/v1/users/{user_id}/attachments":           "hello",

		"/v1/users/{user_id}/sessions/{session_id}/fork": `{"session_id":"t"}`,
	}
	const none, unknown, another, zero, right, admin = "", "key-x", "key-bob", "key-zero", "key-ana", "key-admin"
	const in = 0 // any answer that is no refusal; TestEveryRouteIsServed sees to the rest
	// What each caller gets for ana's things, by rule.
	want := map[Rule]map[string]int{
		Open:         {none: in, unknown: in, another: in, zero: in, right: in, admin: in},
		AdminOnly:    {none: 401, unknown: 401, another: 403, zero: 403, right: 403, admin: in},
		UserInPath:   {none: 401, unknown: 401, another: 403, zero: 403, right: in, admin: in},
		UserInBody:   {none: 401, unknown: 401, another: 403, zero: 403, right: in, admin: in},
		UserInHeader: {none: 401, unknown: 401, another: 403, zero: 403, right: in, admin: in},
		RunOwner:     {none: 401, unknown: 401, another: 404, zero: 404, right: in, admin: in},
		OwnRuns:      {none: 401, unknown: 401, another: in, zero: 403, right: in, admin: in},
	}
	for _, route := range Routes() {
		for key, status := range want[route.Rule] {
			t.Run(route.Method+" "+route.Pattern+" "+key, func(t *testing.T) {
				f := newFake()
				h := New(f, Options{Identify: identify, Metrics: http.HandlerFunc(fakeMetrics)})
				id := f.add("ana")
				f.emit(id, protocol.EventRunFinished, result(id, "secret of ana"))
				path := strings.NewReplacer("{run_id}", id, "{user_id}", "ana", "{approval_id}", "apr_1", "{session_id}", "s").Replace(route.Pattern)
				headers := []string{"X-Carrel-User: ana"}
				if key != none {
					headers = append(headers, bearerOf(key))
				}
				w := ask(t, h, route.Method, path, bodies[route.Pattern], headers...)
				if status == in {
					if w.Code == 401 || w.Code == 403 || route.Rule == RunOwner && w.Code == 404 {
						t.Errorf("status %d: %s", w.Code, w.Body)
					}
					return
				}
				if p := problem(t, w); p.Status != status || strings.Contains(w.Body.String(), "secret") {
					t.Errorf("status %d, want %d: %s", p.Status, status, w.Body)
				}
				if challenge := w.Header().Get("WWW-Authenticate"); (challenge == "Bearer") != (status == 401) {
					t.Errorf("WWW-Authenticate is %q with status %d", challenge, w.Code)
				}
				untouched(t, f, path)
			})
		}
		if want[route.Rule] == nil {
			t.Errorf("%s %s has the rule %d, which nobody knows", route.Method, route.Pattern, route.Rule)
		}
	}
}

func TestRuleSaysWhereTheUserIs(t *testing.T) {
	open := []string{"/healthz", "/readyz", "/openapi.json"}
	for _, r := range Routes() {
		inPath := strings.Contains(r.Pattern, "{user_id}")
		ofRun := strings.Contains(r.Pattern, "{run_id}")
		switch {
		case inPath && r.Rule != UserInPath, ofRun && r.Rule != RunOwner, !inPath && r.Rule == UserInPath, !ofRun && r.Rule == RunOwner:
			t.Errorf("%s %s has the rule %d", r.Method, r.Pattern, r.Rule)
		case (r.Rule == Open) != slices.Contains(open, r.Pattern):
			t.Errorf("%s %s is open to everybody", r.Method, r.Pattern)
		}
	}
}

func TestRouteWithoutARuleLetsNobodyIn(t *testing.T) {
	a := New(newFake(), Options{}).(*api) //nolint:forcetypeassert // it is ours
	ctx, done := Caller{Name: "p", Admin: true}.attach(t.Context())
	defer done()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err := a.permit(0, r); protocol.CodeOf(err) != protocol.CodeForbidden {
		t.Errorf("the admin gets %v", err)
	}
}

func TestForeignRunCannotBeToldFromNoRun(t *testing.T) {
	f := newFake()
	id := f.add("ana")
	h := New(f, Options{Identify: identify})
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/v1/runs/%s", ""},
		{"HEAD", "/v1/runs/%s", ""},
		{"GET", "/v1/runs/%s/events?after=1", ""},
		{"POST", "/v1/runs/%s/cancel", ""},
		{"POST", "/v1/runs/%s/approvals/apr_1", `{"decision":"allow"}`},
		{"GET", "/v1/runs/%s?unknown=1", ""},
		{"POST", "/v1/runs/%s/approvals/apr_1", `nonsense`},
	} {
		foreign := ask(t, h, tt.method, fmt.Sprintf(tt.path, id), tt.body, bearerOf("key-bob"))
		none := ask(t, h, tt.method, fmt.Sprintf(tt.path, "run_none"), tt.body, bearerOf("key-bob"))
		if foreign.Code != 404 || foreign.Code != none.Code || foreign.Body.String() != none.Body.String() {
			t.Errorf("%s %s: %d %s, and for no run %d %s", tt.method, tt.path, foreign.Code, foreign.Body, none.Code, none.Body)
		}
	}
	if run, err := f.Run(t.Context(), id); err != nil || run.Status.Ended() {
		t.Errorf("the run is %+v, %v", run, err)
	}
}

func TestUserKeyListsItsOwnRunsWhateverItAsksFor(t *testing.T) {
	f := newFake()
	h := New(f, Options{Identify: identify})
	for _, query := range []string{"", "?user_id=ana", "?user_id=", "?cursor=of-bob", "?session_id=s&status=failed"} {
		if w := ask(t, h, http.MethodGet, "/v1/runs"+query, "", bearerOf("key-ana")); w.Code != 200 {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
	for _, q := range f.queries {
		if q.UserID != "ana" {
			t.Errorf("the service was asked for %+v", q)
		}
	}
	f.queries = nil
	for _, user := range []string{"bob", "Ana", "ana ", "an", "\u0061\u006ea\u200b"} {
		w := ask(t, h, http.MethodGet, "/v1/runs?user_id="+url.QueryEscape(user), "", bearerOf("key-ana"))
		if problem(t, w).Code != protocol.CodeForbidden {
			t.Errorf("%q: %d %s", user, w.Code, w.Body)
		}
	}
	untouched(t, f, "runs of others")
	ask(t, h, http.MethodGet, "/v1/runs", "", bearerOf("key-admin"))
	if diff := cmp.Diff([]protocol.RunQuery{{Limit: defaultRunsLimit}}, f.queries); diff != "" {
		t.Errorf("an admin's query: %s", diff)
	}
}

func TestIdempotencyKeyBelongsToTheCaller(t *testing.T) {
	f := newFake()
	h := New(f, Options{Identify: identify})
	const body = `{"user_id":"ana","message":"m"}`
	first := ask(t, h, http.MethodPost, "/v1/execute", body, bearerOf("key-ana"), "Idempotency-Key: k")
	again := ask(t, h, http.MethodPost, "/v1/execute", body, bearerOf("key-ana"), "Idempotency-Key: k")
	other := ask(t, h, http.MethodPost, "/v1/execute", body, bearerOf("key-admin"), "Idempotency-Key: k")
	if again.Header().Get("Idempotent-Replayed") != "true" || again.Header().Get("Location") != first.Header().Get("Location") {
		t.Errorf("the same caller: %v", again.Header())
	}
	if other.Header().Get("Idempotent-Replayed") != "" || other.Header().Get("Location") == first.Header().Get("Location") {
		t.Errorf("another caller: %v", other.Header())
	}
	var callers []string
	for _, s := range f.submissions {
		callers = append(callers, s.Caller)
	}
	if diff := cmp.Diff([]string{"ana-phone", "ana-phone", "product"}, callers); diff != "" {
		t.Error(diff)
	}
}

func TestUserIDIsComparedAsItWillBeUsed(t *testing.T) {
	f := newFake()
	h := New(f, Options{Identify: identify})
	for _, segment := range []string{"ana%00", "%61na%20", "ANA", "ana%2F", "..", "", "%FFana"} {
		if w := ask(t, h, http.MethodGet, "/v1/users/"+segment+"/sandbox", "", bearerOf("key-ana")); w.Code != 403 {
			t.Errorf("%q: %d", segment, w.Code)
		}
	}
	// A body that names two users is none.
	for _, body := range []string{
		`{"user_id":"bob","message":"m"}`, `{"user_id":"ana","user_id":"bob","message":"m"}`,
		`{"user_id":"ana","User_ID":"bob","message":"m"}`, `{"message":"m"}`,
	} {
		if w := ask(t, h, http.MethodPost, "/v1/execute", body, bearerOf("key-ana")); w.Code != 403 && w.Code != 400 {
			t.Errorf("%s: %d", body, w.Code)
		}
	}
	untouched(t, f, "other users")
	if w := ask(t, h, http.MethodGet, "/v1/users/%61na/sandbox", "", bearerOf("key-ana")); w.Code != 200 {
		t.Errorf("the own user, encoded: %d", w.Code)
	}
}

func TestWhoHasNoKeyLearnsNothing(t *testing.T) {
	f := newFake()
	h := New(f, Options{Identify: identify, Version: "1.2.3"})
	var answers []string
	for _, tt := range []struct {
		method, path string
		headers      []string
	}{
		{"GET", "/v1/system", nil},
		{"GET", "/nowhere", nil},
		{"PUT", "/v1/runs", nil},
		{"OPTIONS", "/v1/execute", nil},
		{"GET", "/v1/system", []string{bearerOf("key-x")}},
		{"GET", "/v1/system", []string{bearerOf("key-adminn")}},
		{"GET", "/v1/system", []string{bearerOf("")}},
		{"GET", "/v1/system", []string{"Authorization: key-admin"}},
		{"GET", "/v1/system", []string{"Authorization: Basic key-admin"}},
		{"GET", "/v1/system", []string{"Authorization: Bearer  key-admin"}},
		{"GET", "/v1/system", []string{"Authorization: Bearer,key-admin"}},
		{"GET", "/v1/system", []string{bearerOf("key-admin"), bearerOf("key-ana")}},
		{"GET", "/v1/system?access_token=key-admin", nil},
		{"GET", "/v1/system", []string{"X-Api-Key: key-admin", "Cookie: key=key-admin"}},
	} {
		w := ask(t, h, tt.method, tt.path, "", tt.headers...)
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%+v: %d %q", tt, w.Code, w.Header().Get("WWW-Authenticate"))
		}
		answers = append(answers, w.Body.String())
	}
	if slices.Sort(answers); len(slices.Compact(answers)) != 1 {
		t.Errorf("the answers differ: %q", answers)
	}
	if w := ask(t, h, "GET", "/healthz", ""); strings.Contains(w.Body.String(), "1.2.3") {
		t.Errorf("health tells %s", w.Body)
	}
	untouched(t, f, "without a key")
	if w := ask(t, h, "GET", "/v1/system", "", "Authorization: bEARER key-admin"); w.Code != 200 {
		t.Errorf("the scheme in another case: %d", w.Code)
	}
}

func TestWithKeysEveryHostIsAnsweredAndNoForeignPage(t *testing.T) {
	for _, loopback := range []bool{true, false} {
		h := New(newFake(), Options{Identify: identify, Loopback: loopback})
		for _, host := range []string{"carrel.example", "10.0.0.1:8642", "127.0.0.1", ""} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/system", nil)
			r.Host = host
			r.Header.Set("Authorization", "Bearer key-admin")
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != 200 {
				t.Errorf("loopback %v, Host %q: %d", loopback, host, w.Code)
			}
		}
		for _, headers := range [][]string{{"Sec-Fetch-Site: cross-site"}, {"Origin: http://evil.example"}, {"Origin: null"}} {
			w := ask(t, h, http.MethodPost, "http://carrel.example/v1/execute", `{"user_id":"u","message":"m"}`, append(headers, bearerOf("key-admin"))...)
			if w.Code != 403 {
				t.Errorf("loopback %v, %v: %d", loopback, headers, w.Code)
			}
		}
		if w := ask(t, h, http.MethodPost, "http://carrel.example/v1/execute", `{"user_id":"u","message":"m"}`, "Origin: http://carrel.example", bearerOf("key-admin")); w.Code != 200 {
			t.Errorf("loopback %v, a page of its own: %d", loopback, w.Code)
		}
	}
}

func TestLogHasTheCallersNameAndNeverAKey(t *testing.T) {
	var log bytes.Buffer
	h := New(newFake(), Options{Identify: identify, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	ask(t, h, http.MethodPost, "/v1/execute", `{"user_id":"ana","message":"m"}`, bearerOf("key-ana"))
	ask(t, h, http.MethodPost, "/v1/execute", `{"user_id":"ana","message":"m"}`, bearerOf("key-wrong"))
	ask(t, h, http.MethodPost, "/v1/execute", `{"user_id":"ana","message":"m"}`, "Authorization: key-ana")
	if !strings.Contains(log.String(), "caller=ana-phone") || !strings.Contains(log.String(), "wrong API key") {
		t.Errorf("the log lacks something:\n%s", &log)
	}
	if strings.Contains(log.String(), "key-") {
		t.Errorf("the log holds a key:\n%s", &log)
	}
}

func TestStreamEndsWhenItsKeyIsTakenAway(t *testing.T) {
	f := newFake()
	id := f.add("ana")
	f.emit(id, protocol.EventRunStarted, protocol.RunStarted{SessionID: "s", Agent: "shell"})
	alive, revoke := context.WithCancelCause(t.Context())
	h := New(f, Options{Identify: func(string) (Caller, bool) {
		return Caller{Name: "ana-phone", User: "ana", Revoked: alive}, true
	}})
	server := httptest.NewServer(h)
	defer server.Close()
	resp, err := server.Client().Do(request(t, http.MethodGet, server.URL+"/v1/runs/"+id+"/events", "", bearerOf("key-ana")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 10)
	if _, err := resp.Body.Read(first); err != nil {
		t.Fatal(err)
	}
	revoke(errors.New("taken away"))
	if _, err := new(bytes.Buffer).ReadFrom(resp.Body); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
	if n := f.openReaders(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}
