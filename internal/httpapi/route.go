package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"carrel/protocol"
)

// Route is one line of the route table.
type Route struct {
	Method  string
	Pattern string // "{name}" stands for one whole segment, "{name...}" at the end for all that follow
	Summary string
	Query   []string // the query parameters it knows; others are refused
	Rule    Rule     // who may call it
}

// route is a Route with what serves it. An error that handle returns becomes a
// problem document, unless the answer has begun.
type route struct {
	Route

	handle func(*api, http.ResponseWriter, *http.Request) error
}

// table lists every route, as in CONTRACT section 3. The rows name no fields, so
// that one without a rule does not compile.
func table() []route {
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	return []route{
		{Route{post, "/v1/execute", "Start a run", nil, UserInBody}, (*api).execute},
		{Route{post, "/v1/ag-ui", "Run, or go on, as AG-UI has it", nil, UserInHeader}, (*api).runAGUI},
		{Route{get, "/v1/runs", "List runs, newest first", []string{"user_id", "session_id", "status", "limit", "cursor"}, OwnRuns}, (*api).listRuns},
		{Route{get, "/v1/runs/{run_id}", "Show a run", nil, RunOwner}, (*api).showRun},
		{Route{get, "/v1/runs/{run_id}/events", "Replay and follow a run's events", []string{"after"}, RunOwner}, (*api).followRun},
		{Route{post, "/v1/runs/{run_id}/cancel", "Cancel a run", nil, RunOwner}, (*api).cancelRun},
		{Route{post, "/v1/runs/{run_id}/approvals/{approval_id}", "Allow or deny the use of a tool", nil, RunOwner}, (*api).decide},
		{Route{post, "/v1/users/{user_id}/exec", "Run one command", nil, UserInPath}, (*api).exec},
		{Route{post, "/v1/users/{user_id}/attachments", "Store a file for a user's runs", []string{"name"}, UserInPath}, (*api).attach},
		{Route{get, "/v1/users/{user_id}/files", "List or archive a user's workspace", []string{"limit", "cursor", "archive"}, UserInPath}, (*api).getFile},
		{Route{put, "/v1/users/{user_id}/files", "Unpack an archive into a user's workspace", []string{"archive"}, UserInPath}, (*api).putFile},
		{Route{get, "/v1/users/{user_id}/files/{path...}", "Download a file, or list or archive a directory", []string{"limit", "cursor", "archive"}, UserInPath}, (*api).getFile},
		{Route{put, "/v1/users/{user_id}/files/{path...}", "Store a file, or unpack an archive into a directory", []string{"archive"}, UserInPath}, (*api).putFile},
		{Route{del, "/v1/users/{user_id}/files/{path...}", "Delete a file, or a directory with all in it", nil, UserInPath}, (*api).deleteFile},
		{Route{get, "/v1/users/{user_id}/sessions", "List a user's sessions, last used first", nil, UserInPath}, (*api).listSessions},
		{Route{get, "/v1/users/{user_id}/sessions/{session_id}", "Show a session's transcript", nil, UserInPath}, (*api).showSession},
		{Route{del, "/v1/users/{user_id}/sessions/{session_id}", "Delete a session", nil, UserInPath}, (*api).deleteSession},
		{Route{post, "/v1/users/{user_id}/sessions/{session_id}/fork", "Begin a new session as another", nil, UserInPath}, (*api).forkSession},
		{Route{get, "/v1/sandboxes", "List live sandboxes", nil, AdminOnly}, (*api).listSandboxes},
		{Route{get, "/v1/users/{user_id}/sandbox", "Show a user's sandbox", nil, UserInPath}, (*api).showSandbox},
		{Route{del, "/v1/users/{user_id}/sandbox", "Retire a user's sandbox", []string{"purge"}, UserInPath}, (*api).retireSandbox},
		{Route{get, "/v1/system", "Show the daemon", nil, AdminOnly}, (*api).showSystem},
		{Route{get, "/healthz", "Tell that the daemon lives", nil, Open}, (*api).health},
		{Route{get, "/readyz", "Tell whether a run could start", nil, Open}, (*api).ready},
		{Route{get, "/openapi.json", "Describe this API", nil, Open}, (*api).showOpenAPI},
		{Route{get, "/metrics", "Show the daemon's figures for Prometheus", nil, AdminOnly}, (*api).metrics},
	}
}

// Routes returns the route table.
func Routes() []Route {
	var routes []Route
	for _, r := range table() {
		routes = append(routes, r.Route)
	}
	return routes
}

// match finds the route of a request and sets its path values. Requests without
// one get 404, or 405 where only the method is wrong.
//
// It splits the path as it was sent, still percent-encoded, and decodes each
// segment on its own. http.ServeMux would first clean the path: the user ids
// "." and "..", which many clients send as they are (url.PathEscape leaves them
// so), would vanish and redirect the request to another route; and its 404, 405
// and redirects are not problem documents.
func match(routes []route, r *http.Request) (route, error) {
	var segments []string
	for segment := range strings.SplitSeq(r.URL.EscapedPath(), "/") {
		decoded, err := url.PathUnescape(segment)
		if err != nil {
			return route{}, protocol.Errorf(protocol.CodeInvalidRequest, "path: malformed percent-encoding")
		}
		segments = append(segments, decoded)
	}
	var allowed []string
	for _, candidate := range routes {
		values, ok := matchPattern(candidate.Pattern, segments)
		if !ok {
			continue
		}
		if !serves(candidate.Method, r.Method) {
			allowed = append(allowed, methodsOf(candidate.Method)...)
			continue
		}
		for _, v := range values {
			r.SetPathValue(v.name, v.value)
		}
		return candidate, nil
	}
	if len(allowed) == 0 {
		return route{}, protocol.Errorf(protocol.CodeNotFound, "there is no such path")
	}
	slices.Sort(allowed)
	allow := strings.Join(slices.Compact(allowed), ", ")
	return route{}, &answerError{
		error:  protocol.Errorf(protocol.CodeInvalidRequest, "method not allowed here; allowed: %s", allow),
		status: http.StatusMethodNotAllowed,
		allow:  allow,
	}
}

type pathValue struct{ name, value string }

// matchPattern compares decoded segments with a pattern, segment by segment. Where the
// pattern ends with all segments that follow, none of them may hold a slash of its own:
// as a path they could not be told apart.
func matchPattern(pattern string, segments []string) ([]pathValue, bool) {
	wanted := strings.Split(pattern, "/")
	last := len(wanted) - 1
	if name, ok := strings.CutSuffix(wanted[last], "...}"); ok && len(segments) > last {
		rest := segments[last:]
		if slices.ContainsFunc(rest, func(s string) bool { return strings.Contains(s, "/") }) {
			return nil, false
		}
		values, ok := matchPattern(strings.Join(wanted[:last], "/"), segments[:last])
		return append(values, pathValue{strings.TrimPrefix(name, "{"), strings.Join(rest, "/")}), ok
	}
	if len(wanted) != len(segments) {
		return nil, false
	}
	var values []pathValue
	for i, want := range wanted {
		if name, ok := strings.CutPrefix(want, "{"); ok {
			values = append(values, pathValue{strings.TrimSuffix(name, "}"), segments[i]})
		} else if want != segments[i] {
			return nil, false
		}
	}
	return values, true
}

// methodsOf lists what a route of this method answers to: GET includes HEAD
// (RFC 9110, section 9.1).
func methodsOf(method string) []string {
	if method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{method}
}

func serves(method, requested string) bool {
	return slices.Contains(methodsOf(method), requested)
}
