package httpapi

import (
	"maps"
	"net/http"
	"testing"

	"github.com/invopop/jsonschema"

	"carrel/protocol"
)

// operations says of each route what the route table does not: by method and pattern.
func operations(t *testing.T, s *schemas) map[string]operation {
	t.Helper()
	run, command := streams(t, s)
	table := map[string]operation{}
	for _, part := range []map[string]operation{
		runOperations(s, run), aguiOperations(s), sandboxOperations(s, command), userOperations(s), fileOperations(s), daemonOperations(s),
	} {
		maps.Copy(table, part)
	}
	return table
}

// Kinds of body.

const (
	mediaJSON   = "application/json"
	mediaEvents = "text/event-stream"
	mediaBytes  = "application/octet-stream"
)

func jsonBody(schema *jsonschema.Schema, examples map[string]docExample) *docBody {
	return &docBody{Required: true, Content: map[string]docMedia{mediaJSON: {Schema: schema, Examples: examples}}}
}

// answerOf is an answer with named headers.
func answerOf(about string, content map[string]docMedia, headers ...string) docResponse {
	r := docResponse{Description: about, Content: content, Headers: map[string]*docHeader{}}
	for _, name := range headers {
		r.Headers[name] = header(name)
	}
	return r
}

func jsonAnswer(about string, schema *jsonschema.Schema, headers ...string) docResponse {
	return answerOf(about, map[string]docMedia{mediaJSON: {Schema: schema}}, headers...)
}

// opaque is a body that no schema describes.
func opaque() docMedia { return docMedia{} }

// The codes of operations that use a worker.
func workerCodes() []protocol.Code {
	return []protocol.Code{
		protocol.CodeAgentError, protocol.CodeCanceled, protocol.CodeConflict, protocol.CodeDiskQuotaExceeded, protocol.CodeInterrupted,
		protocol.CodeIsolationUnavailable, protocol.CodeNotFound, protocol.CodeOutOfMemory, protocol.CodeQueueFull,
		protocol.CodeQueueTimeout, protocol.CodeRunTimeout, protocol.CodeShuttingDown, protocol.CodeTooLarge, protocol.CodeWorkerCrashed,
		protocol.CodeWorkerProtocolError, protocol.CodeWorkerStartFailed,
	}
}

// The statuses of a JSON body that is none.
func jsonRefusals() []int { return []int{http.StatusRequestTimeout, http.StatusUnsupportedMediaType} }

// streams are the events of a run and those of a command, as bodies.
func streams(t *testing.T, s *schemas) (run, command docMedia) {
	t.Helper()
	runEvent, events := s.events(t)
	execEvents := map[string]*jsonschema.Schema{}
	for _, name := range []protocol.EventType{protocol.ExecStdout, protocol.ExecStderr, protocol.ExecExit} {
		execEvents[string(name)] = events[string(name)]
		delete(events, string(name))
	}
	s.named["ExecEvent"] = &jsonschema.Schema{
		Description: "The data of a frame of a streamed command: output with the event STDOUT or STDERR, at last the result with EXIT, its outputs empty.",
		OneOf:       []*jsonschema.Schema{execEvents["STDOUT"], execEvents["EXIT"]},
	}
	return docMedia{Schema: runEvent, Events: events}, docMedia{Schema: &jsonschema.Schema{Ref: schemaPath + "ExecEvent"}, Events: execEvents}
}

func runOperations(s *schemas, stream docMedia) map[string]operation {
	run := s.answer(protocol.Run{})
	return map[string]operation{
		"POST /v1/execute": {
			id: "execute", tag: "runs", about: aboutExecute,
			headers: []string{"Prefer", "Idempotency-Key"},
			body:    jsonBody(s.request(protocol.ExecuteRequest{}), executeExamples()),
			answers: map[int]docResponse{
				http.StatusOK: answerOf("The run's result once it has ended, or with `Accept: text/event-stream` its events as they come. A run that ends in an error answers with the problem of its code.",
					map[string]docMedia{mediaJSON: {Schema: s.answer(protocol.Result{})}, mediaEvents: stream}, "Location", "Idempotent-Replayed"),
				http.StatusAccepted: jsonAnswer("With `Prefer: respond-async`: the run, at once.", run, "Location", "Idempotent-Replayed", "Preference-Applied"),
			},
			codes:   append(workerCodes(), protocol.CodeBudgetExceeded),
			refuses: append(jsonRefusals(), http.StatusNotAcceptable),
		},
		"GET /v1/runs": {
			id: "listRuns", tag: "runs",
			query: map[string]docParameter{
				"user_id":    {Description: "Only this user's. A user key has its own here in any case.", Schema: userSchema()},
				"session_id": {Description: "Only this session's.", Schema: sessionSchema()},
				"status":     {Description: "Only runs in this state.", Schema: &jsonschema.Schema{Ref: schemaPath + "RunStatus"}},
				"limit":      limitParameter(maxRunsLimit, defaultRunsLimit),
				"cursor":     {Description: "The `next_cursor` of the page before, of the same selection.", Schema: &jsonschema.Schema{Type: "string", MaxLength: new(uint64(maxCursorBytes))}},
			},
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("A page of runs, newest first.", s.answer(protocol.RunPage{}))},
		},
		"GET /v1/runs/{run_id}": {
			id: "getRun", tag: "runs",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("The run, with its result or error once it has ended.", run)},
		},
		"GET /v1/runs/{run_id}/events": {
			id: "followRun", tag: "runs",
			about:   "Each event is stored before it is shown: who reconnects after the last `id` it saw has neither gap nor double. The stream ends after the run's last event; a comment every 15 s keeps the connection.",
			headers: []string{"Last-Event-ID"},
			query: map[string]docParameter{
				"after": {Description: "Only events with a greater `seq`. Last-Event-ID goes before it.", Schema: &jsonschema.Schema{Type: "integer", Minimum: "0"}},
			},
			answers: map[int]docResponse{http.StatusOK: answerOf("The events, stored and to come.", map[string]docMedia{mediaEvents: stream})},
		},
		"POST /v1/runs/{run_id}/cancel": {
			id: "cancelRun", tag: "runs", about: "Asking again is no error, nor is asking of a run that has ended.",
			answers: map[int]docResponse{
				http.StatusOK:       jsonAnswer("The run, which has ended.", run),
				http.StatusAccepted: jsonAnswer("The run, which is still ending.", run),
			},
		},
		"POST /v1/runs/{run_id}/approvals/{approval_id}": {
			id: "decideApproval", tag: "runs",
			about:   "Answers an APPROVAL_REQUESTED. The same answer again is no error, another one is `conflict`.",
			body:    jsonBody(s.request(protocol.ApprovalDecision{}), nil),
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("What was decided.", s.answer(protocol.ApprovalResolved{}))},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeTooLarge},
			refuses: jsonRefusals(),
		},
	}
}

func limitParameter(most, otherwise int) docParameter {
	return docParameter{Description: "The longest page.", Schema: &jsonschema.Schema{Type: "integer", Minimum: "1", Maximum: number(most), Default: otherwise}}
}

func userOperations(s *schemas) map[string]operation {
	session := s.answer(protocol.SessionInfo{})
	return map[string]operation{
		"POST /v1/users/{user_id}/attachments": {
			id: "attachFile", tag: "files", about: "The body is the file; of a form it is the first part that is a file. A run names it by its id. The type is that of the content, not the one declared.",
			query: map[string]docParameter{"name": {Description: "The file's name; of a form, the part's own otherwise.", Schema: &jsonschema.Schema{Type: "string"}}},
			body: &docBody{Required: true, Content: map[string]docMedia{
				"multipart/form-data": {Schema: formSchema()},
				"*/*":                 opaque(),
			}},
			answers: map[int]docResponse{http.StatusCreated: jsonAnswer("The file is stored, whole.", s.answer(protocol.AttachmentInfo{}))},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeDiskQuotaExceeded, protocol.CodeTooLarge},
			refuses: []int{http.StatusRequestTimeout},
		},
		"GET /v1/users/{user_id}/sessions": {
			id: "listSessions", tag: "sessions",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("What the user's agents remember.", s.answer(protocol.SessionList{}))},
			codes:   []protocol.Code{protocol.CodeConflict},
		},
		"GET /v1/users/{user_id}/sessions/{session_id}": {
			id: "getSession", tag: "sessions",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("The transcript.", s.answer(protocol.Transcript{}))},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound, protocol.CodeTooLarge},
		},
		"DELETE /v1/users/{user_id}/sessions/{session_id}": {
			id: "deleteSession", tag: "sessions",
			answers: map[int]docResponse{http.StatusNoContent: answerOf("It is gone.", nil)},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound},
		},
		"POST /v1/users/{user_id}/sessions/{session_id}/fork": {
			id: "forkSession", tag: "sessions", about: "Without a `session_id` of the new one, it is made.",
			body:    jsonBody(s.request(protocol.ForkRequest{}), nil),
			answers: map[int]docResponse{http.StatusCreated: jsonAnswer("The new session.", session)},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeDiskQuotaExceeded, protocol.CodeNotFound, protocol.CodeTooLarge},
			refuses: jsonRefusals(),
		},
	}
}

func sandboxOperations(s *schemas, stream docMedia) map[string]operation {
	return map[string]operation{
		"POST /v1/users/{user_id}/exec": {
			id: "exec", tag: "sandboxes", about: "Runs one command in the user's sandbox, without an agent. It belongs to no run and is not stored; it ends when its caller leaves.",
			body: jsonBody(s.request(protocol.ExecRequest{}), execExamples()),
			answers: map[int]docResponse{
				http.StatusOK: answerOf("What the command gave, whatever its exit code; with `Accept: text/event-stream` as it comes, in frames without an id.",
					map[string]docMedia{
						mediaJSON:   {Schema: s.answer(protocol.ExecResult{})},
						mediaEvents: stream,
					}),
			},
			codes:   workerCodes(),
			refuses: append(jsonRefusals(), http.StatusNotAcceptable),
		},
		"GET /v1/sandboxes": {
			id: "listSandboxes", tag: "sandboxes",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("The live workers.", s.answer(protocol.Sandboxes{}))},
		},
		"GET /v1/users/{user_id}/sandbox": {
			id: "getSandbox", tag: "sandboxes",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("The user's limits, disk use and isolation, and the worker where one lives.", s.answer(protocol.SandboxInfo{}))},
			codes:   []protocol.Code{protocol.CodeConflict},
		},
		"DELETE /v1/users/{user_id}/sandbox": {
			id: "retireSandbox", tag: "sandboxes", about: "Ends the user's worker, and the runs it has with it. The next run gets another one.",
			query: map[string]docParameter{
				"purge": {Description: "Remove the user's directory too: files, sessions and attachments, for good.", Schema: &jsonschema.Schema{Type: "boolean", Default: false}},
			},
			answers: map[int]docResponse{http.StatusNoContent: answerOf("It is done, or there was nothing to do.", nil)},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound},
		},
	}
}

func daemonOperations(s *schemas) map[string]operation {
	return map[string]operation{
		"GET /v1/system": {
			id: "getSystem", tag: "daemon",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("Version, isolation, figures, and the configuration without secrets.", s.answer(protocol.System{}))},
		},
		"GET /healthz": {
			id: "getHealth", tag: "daemon",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("The daemon lives. The version stands there where no keys are in force.", s.answer(healthAnswer{}))},
		},
		"GET /readyz": {
			id: "getReadiness", tag: "daemon",
			answers: map[int]docResponse{
				http.StatusOK: jsonAnswer("A run could start.", s.answer(healthAnswer{})),
				http.StatusServiceUnavailable: answerOf("No run could start, and why.",
					map[string]docMedia{protocol.ProblemMediaType: {Schema: &jsonschema.Schema{Ref: schemaPath + "Problem"}}}, "Retry-After"),
			},
			codes: []protocol.Code{protocol.CodeShuttingDown},
		},
		"GET /metrics": {
			id: "getMetrics", tag: "daemon",
			answers: map[int]docResponse{http.StatusOK: answerOf("The figures, in the form that Prometheus asks for.", map[string]docMedia{
				"text/plain":                      {Schema: &jsonschema.Schema{Type: "string"}},
				"application/vnd.google.protobuf": opaque(),
			})},
			codes: []protocol.Code{protocol.CodeNotFound},
		},
		"GET /openapi.json": {
			id: "getOpenAPI", tag: "daemon",
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("This document.", &jsonschema.Schema{Type: "object"})},
		},
	}
}
