package httpapi

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func TestEveryRouteIsServed(t *testing.T) {
	statuses := map[string]int{
		"POST /v1/execute":              200,
		"POST /v1/ag-ui":                200,
		"GET /v1/runs":                  200,
		"GET /v1/runs/{run_id}":         200,
		"GET /v1/runs/{run_id}/events":  200,
		"POST /v1/runs/{run_id}/cancel": 200,
		"POST /v1/users/{user_id}/exec": 200,

		"POST /v1/runs/{run_id}/approvals/{approval_id}": 200,
		"POST /v1/users/{user_id}/attachments":           201,

		"GET /v1/users/{user_id}/files":              200,
		"PUT /v1/users/{user_id}/files":              200,
		"GET /v1/users/{user_id}/files/{path...}":    200,
		"PUT /v1/users/{user_id}/files/{path...}":    200,
		"DELETE /v1/users/{user_id}/files/{path...}": 204,

		"GET /v1/users/{user_id}/sessions":                    200,
		"GET /v1/users/{user_id}/sessions/{session_id}":       200,
		"DELETE /v1/users/{user_id}/sessions/{session_id}":    204,
		"POST /v1/users/{user_id}/sessions/{session_id}/fork": 201,
		"GET /v1/sandboxes":                                   200,
		"GET /v1/users/{user_id}/sandbox":                     200,
		"DELETE /v1/users/{user_id}/sandbox":                  204,
		"GET /v1/system":                                      200,
		"GET /healthz":                                        200,
		"GET /metrics":                                        200,
		"GET /openapi.json":                                   200,
		"GET /readyz":                                         200,
	}
	bodies := map[string]string{
		"/v1/execute":              `{"user_id":"u","message":"m"}`,
		"/v1/ag-ui":                `{"threadId":"s","runId":"r","messages":[{"id":"1","role":"user","content":"m"}]}`,
		"/v1/users/{user_id}/exec": `{"command":["true"]}`,

		"/v1/runs/{run_id}/approvals/{approval_id}": `{"decision":"allow"}`,
		"/v1/users/{user_id}/attachments":           "hello",

		"/v1/users/{user_id}/sessions/{session_id}/fork": `{"session_id":"t"}`,
	}
	f := newFake()
	h := New(f, Options{Version: "1.2", Metrics: http.HandlerFunc(fakeMetrics)})
	id := f.add("u")
	f.emit(id, protocol.EventRunFinished, result(id, ""))
	for _, route := range Routes() {
		name := route.Method + " " + route.Pattern
		want, ok := statuses[name]
		if !ok {
			t.Errorf("%s: not in this test", name)
		}
		delete(statuses, name)
		path := strings.NewReplacer("{run_id}", id, "{user_id}", "u", "{approval_id}", "apr_1", "{session_id}", "s", "{path...}", "f").Replace(route.Pattern)
		w := ask(t, h, route.Method, path, bodies[route.Pattern], "X-Carrel-User: u")
		if w.Code != want {
			t.Errorf("%s: status %d, want %d: %s", name, w.Code, want, w.Body)
		}
		if w.Header().Get("X-Request-Id") == "" {
			t.Errorf("%s: no X-Request-Id", name)
		}
	}
	if len(statuses) > 0 {
		t.Errorf("not in the route table: %v", statuses)
	}
}

func fakeMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	w.WriteHeader(http.StatusOK)
}

func TestNoTwoRoutesServeTheSameRequest(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Routes() {
		// No literal stands where another route has a wildcard, so that the
		// patterns as text are what tells two routes apart.
		key := r.Method + " " + r.Pattern
		if seen[key] {
			t.Errorf("%s stands twice", key)
		}
		seen[key] = true
		for _, other := range Routes() {
			if r.Pattern == other.Pattern {
				continue
			}
			if _, ok := matchPattern(r.Pattern, strings.Split(other.Pattern, "/")); ok {
				t.Errorf("%s also serves %s", r.Pattern, other.Pattern)
			}
		}
	}
}

func TestUnknownPathAndWrongMethodAreProblems(t *testing.T) {
	h := New(newFake(), Options{})
	for _, tt := range []struct {
		method, path string
		status       int
		code         protocol.Code
		allow        string
	}{
		{"GET", "/", 404, protocol.CodeNotFound, ""},
		{"GET", "/v1", 404, protocol.CodeNotFound, ""},
		{"GET", "/v1/runs/", 404, protocol.CodeNotFound, ""},
		{"GET", "//v1/runs", 404, protocol.CodeNotFound, ""},
		{"GET", "/v1/users/u/../../runs", 404, protocol.CodeNotFound, ""},
		{"GET", "/v1/execute", 405, protocol.CodeInvalidRequest, "POST"},
		{"PUT", "/v1/runs", 405, protocol.CodeInvalidRequest, "GET, HEAD"},
		{"POST", "/v1/users/u/sandbox", 405, protocol.CodeInvalidRequest, "DELETE, GET, HEAD"},
		{"OPTIONS", "/v1/system", 405, protocol.CodeInvalidRequest, "GET, HEAD"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			w := ask(t, h, tt.method, tt.path, "")
			p := problem(t, w)
			if w.Code != tt.status || p.Code != tt.code || w.Header().Get("Allow") != tt.allow {
				t.Errorf("got %d %s, Allow %q", w.Code, p.Code, w.Header().Get("Allow"))
			}
		})
	}
}

// The requests go over a connection as raw bytes, so that no client tidies the
// path first.
func TestAnyUserIDGoesThroughThePathUnchanged(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(New(f, Options{}))
	defer server.Close()
	for _, tt := range []struct{ segment, want string }{
		{"u", "u"},
		{"a%2Fb", "a/b"},
		{"a%2fb", "a/b"},
		{"%2F", "/"},
		{"%2F%2F..%2F", "//../"},
		{"..%2F..%2Fetc", "../../etc"},
		{"%2E%2E", ".."},
		{"..", ".."},
		{"%2e", "."},
		{".", "."},
		{"%20x", " x"},
		{"x%20", "x "},
		{"+", "+"},
		{"%2B", "+"},
		{"%25", "%"},
		{"%252F", "%2F"},
		{"a;b=c", "a;b=c"},
		{"%3F%23", "?#"},
		{"%E5%BC%B5%E4%B8%89", "張三"},
		{"e%CC%81", "e\u0301"}, // not normalized: another id than é
		{"%7Buser_id%7D", "{user_id}"},
		{strings.Repeat("%41", 256), strings.Repeat("A", 256)},
	} {
		t.Run(tt.segment, func(t *testing.T) {
			f.users = nil
			status := rawStatus(t, server.Listener.Addr().String(), "GET /v1/users/"+tt.segment+"/sandbox HTTP/1.1")
			if status != 200 {
				t.Errorf("status %d", status)
			}
			if diff := cmp.Diff([]string{tt.want}, f.users); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBadUserIDInThePathIsRefused(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(New(f, Options{}))
	defer server.Close()
	for _, segment := range []string{"", "%00", "a%0Ab", "%7F", "%C2%85", "%FF", "%ED%A0%80", strings.Repeat("a", 257)} {
		for _, line := range []string{"GET /v1/users/%s/sandbox HTTP/1.1", "DELETE /v1/users/%s/sandbox HTTP/1.1", "POST /v1/users/%s/exec HTTP/1.1"} {
			if status := rawStatus(t, server.Listener.Addr().String(), fmt.Sprintf(line, segment)); status != 400 {
				t.Errorf("%.60q: status %d, want 400", line+segment, status)
			}
		}
	}
	if len(f.users) > 0 {
		t.Errorf("the service saw %q", f.users)
	}
}

// rawStatus sends a request line as it is and returns the answer's status.
func rawStatus(t *testing.T, addr, line string) int {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", line); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestListRunsReadsItsQuery(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	w := ask(t, h, http.MethodGet, "/v1/runs?user_id=a%2Fb&session_id=s-1&status=failed&limit=7&cursor=c", "")
	if got := strings.TrimSpace(w.Body.String()); got != `{"runs":[]}` {
		t.Errorf("an empty page is %s", got)
	}
	ask(t, h, http.MethodGet, "/v1/runs", "")
	want := []protocol.RunQuery{
		{UserID: "a/b", SessionID: "s-1", Status: protocol.StatusFailed, Limit: 7, Cursor: "c"},
		{Limit: defaultRunsLimit},
	}
	if diff := cmp.Diff(want, f.queries); diff != "" {
		t.Error(diff)
	}
}

func TestBadQueriesAreRefused(t *testing.T) {
	f := newFake()
	id := f.add("u")
	f.emit(id, protocol.EventRunFinished, result(id, ""))
	h := New(f, Options{})
	events := "/v1/runs/" + id + "/events"
	for _, tt := range []struct{ method, target, header, detail string }{
		{"GET", "/v1/runs?limit=0", "", "limit: must be 1 to 200"},
		{"GET", "/v1/runs?limit=201", "", "limit"},
		{"GET", "/v1/runs?limit=1e2", "", "limit"},
		{"GET", "/v1/runs?status=done", "", "status: must be one of [queued"},
		{"GET", "/v1/runs?user_id=%00", "", "user_id"},
		{"GET", "/v1/runs?session_id=a/b", "", "session_id"},
		{"GET", "/v1/runs?cursor=%0a", "", "cursor"},
		{"GET", "/v1/runs?user=u", "", `unknown query parameter "user"`},
		{"GET", "/v1/runs?userid=u", "", `did you mean "user_id"?`},
		{"GET", "/v1/runs?limit=1&limit=2", "", `"limit": given 2 times`},
		{"GET", "/v1/runs?a;b", "", "query: malformed"},
		{"GET", "/v1/runs?limit=%zz", "", "query: malformed"},
		{"GET", "/v1/system?x=1", "", "unknown query parameter"},
		{"DELETE", "/v1/users/u/sandbox?purge=1", "", "purge: must be true or false"},
		{"DELETE", "/v1/users/u/sandbox?purge", "", "purge"},
		{"GET", events + "?after=-1", "", "after: must be the decimal number"},
		{"GET", events + "?after=", "", "after"},
		{"GET", events + "?after=+1", "", "after"},
		{"GET", events + "?after=0x1", "", "after"},
		{"GET", events + "?after=9223372036854775808", "", "after"},
		{"GET", events, "Last-Event-ID: x", "Last-Event-ID: must be the decimal number"},
		{"GET", events, "Last-Event-ID: 1.0", "Last-Event-ID"},
		{"GET", events + "?after=x", "Last-Event-ID: 1", "after"},
	} {
		t.Run(tt.target+" "+tt.header, func(t *testing.T) {
			var headers []string
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			p := problem(t, ask(t, h, tt.method, tt.target, "", headers...))
			if p.Status != 400 || p.Code != protocol.CodeInvalidRequest || !strings.Contains(p.Detail, tt.detail) {
				t.Errorf("got %+v, want a detail with %q", p, tt.detail)
			}
		})
	}
	if len(f.queries)+len(f.purged) > 0 {
		t.Errorf("the service saw %v %v", f.queries, f.purged)
	}
}
