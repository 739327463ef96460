package httpapi

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

const (
	executePath = "/v1/execute"
	execPath    = "/v1/users/u/exec"
)

// with is a good body for execute with one member replaced or added.
func with(member, value string) string {
	text := `{"` + member + `":` + value
	for _, other := range []string{"user_id", "message"} {
		if other != member {
			text += `,"` + other + `":"u"`
		}
	}
	return text + "}"
}

func TestBadBodiesAreRefusedByName(t *testing.T) {
	long := strings.Repeat("x", protocol.MaxMessageBytes+1)
	for _, tt := range []struct {
		name, path, body, header string
		status                   int
		detail                   string
	}{
		// What is no JSON object.
		{"empty", executePath, "", "", 400, "body: is empty"},
		{"blank", executePath, " \n", "", 400, "body: is empty"},
		{"cut off", executePath, `{"user_id":"u"`, "", 400, "not JSON at byte 14: unexpected end"},
		{"malformed", executePath, `{"user_id":'u'}`, "", 400, "not JSON at byte 12: invalid character"},
		{"trailing object", executePath, `{"user_id":"u","message":"m"} {}`, "", 400, "not JSON at byte 31: invalid character '{' after top-level value"},
		{"trailing byte", executePath, `{"user_id":"u","message":"m"}x`, "", 400, "after top-level value"},
		{"array", executePath, `[]`, "", 400, "body: must be an object, not an array"},
		{"string", executePath, `"x"`, "", 400, "body: must be an object, not a string"},
		{"null", executePath, `null`, "", 400, "user_id: must not be empty"},
		{"byte order mark", executePath, "\uFEFF{}", "", 400, "not JSON at byte 1"},
		{"deep nesting", executePath, with("config", strings.Repeat("[", 20000)+strings.Repeat("]", 20000)), "", 400, "exceeded max depth"},
		// What is no Unicode.
		{"no UTF-8", executePath, "{\"user_id\":\"u\xff\",\"message\":\"m\"}", "", 400, "body: byte 14 is no UTF-8"},
		{"surrogate in UTF-8", executePath, "{\"user_id\":\"\xed\xa0\x80\"}", "", 400, "no UTF-8"},
		{"lone high surrogate", executePath, with("user_id", `"\ud800"`), "", 400, "half of a surrogate pair"},
		{"lone low surrogate", executePath, with("message", `"\\\udc00"`), "", 400, "half of a surrogate pair"},
		{"two high surrogates", executePath, with("message", `"\ud83d\ud83d"`), "", 400, "half of a surrogate pair"},
		// Names.
		{"unknown field", executePath, with("mesage", `"x"`), "", 400, `unknown field "mesage"; did you mean "message"?`},
		{"unknown and far", executePath, with("zzz", `1`), "", 400, `unknown field "zzz"`},
		{"unknown and long", executePath, with(strings.Repeat("é", 99), `1`), "", 400, `unknown field "` + strings.Repeat("é", 32) + `"…`},
		{"other case", executePath, `{"USER_ID":"u","message":"m"}`, "", 400, `unknown field "USER_ID"; did you mean "user_id"?`},
		{"unknown in config", executePath, with("config", `{"max_token":1}`), "", 400, `unknown field "config.max_token"; did you mean "config.max_tokens"?`},
		{"unknown in attachment", executePath, with("attachments", `[{"id":"a"},{"id":"b","name":"c"}]`), "", 400, `unknown field "attachments[1].name"`},
		{"given twice", executePath, `{"user_id":"u","message":"m","user_id":"v"}`, "", 400, "user_id: given twice"},
		{"given twice in config", executePath, with("config", `{"agent":"a","agent":"b"}`), "", 400, "config.agent: given twice"},
		// Types.
		{"number for string", executePath, with("message", `5`), "", 400, "message: must be a string, not a number"},
		{"object for string", executePath, with("user_id", `{}`), "", 400, "user_id: must be a string, not an object"},
		{"string for object", executePath, with("config", `"x"`), "", 400, "config: must be an object, not a string"},
		{"object for array", executePath, with("attachments", `{}`), "", 400, "attachments: must be an array, not an object"},
		{"string for number", executePath, with("config", `{"max_tokens":"1"}`), "", 400, "config.max_tokens: must be a whole number of ordinary size, not a string"},
		{"fraction", executePath, with("config", `{"max_tokens":1.5}`), "", 400, "config.max_tokens: must be a whole number"},
		{"huge whole number", executePath, with("config", `{"max_turns":99999999999999999999}`), "", 400, "config.max_turns: must be a whole number of ordinary size, not a number"},
		{"infinite", executePath, with("config", `{"timeout_s":1e999}`), "", 400, "config.timeout_s: must be a number of ordinary size"},
		// Values.
		{"no user", executePath, `{"message":"m"}`, "", 400, "user_id: must not be empty"},
		{"control character in user", executePath, with("user_id", `"a\u0000"`), "", 400, "user_id: must not contain control"},
		{"long user", executePath, with("user_id", `"`+long[:257]+`"`), "", 400, "user_id: 257 bytes"},
		{"bad session", executePath, with("session_id", `"a/b"`), "", 400, "session_id: only"},
		{"dots as session", executePath, with("session_id", `".."`), "", 400, `session_id: ".." is not allowed`},
		{"no message", executePath, `{"user_id":"u"}`, "", 400, "message: must not be empty"},
		{"empty message", executePath, with("message", `""`), "", 400, "message: must not be empty"},
		{"long message", executePath, with("message", `"`+long+`"`), "", 413, "message: 524289 bytes, at most 524288"},
		{"long system", executePath, with("config", `{"system":"`+long[:65537]+`"}`), "", 413, "config.system: 65537 bytes"},
		{"many attachments", executePath, with("attachments", "["+strings.Repeat(`{"id":"a"},`, 100)+`{"id":"a"}]`), "", 400, "attachments: 101 given"},
		{"attachment without id", executePath, with("attachments", `[{"id":"a"},{}]`), "", 400, "attachments[1].id: must be 1 to 128"},
		{"attachment type", executePath, with("attachments", `[{"id":"a","type":"a\nb"}]`), "", 400, "attachments[0].type"},
		{"long agent", executePath, with("config", `{"agent":"`+long[:129]+`"}`), "", 400, "config.agent"},
		{"negative tokens", executePath, with("config", `{"max_tokens":-1}`), "", 400, "config.max_tokens: must be 1 to 10000000"},
		{"many tokens", executePath, with("config", `{"max_tokens":10000001}`), "", 400, "config.max_tokens"},
		{"negative turns", executePath, with("config", `{"max_turns":-1}`), "", 400, "config.max_turns"},
		{"negative timeout", executePath, with("config", `{"timeout_s":-0.5}`), "", 400, "config.timeout_s: must be 0.001 to 86400 seconds"},
		{"timeout that rounds to none", executePath, with("config", `{"timeout_s":1e-300}`), "", 400, "config.timeout_s"},
		{"long timeout", executePath, with("config", `{"timeout_s":86401}`), "", 400, "config.timeout_s"},
		{"NaN", executePath, with("config", `{"timeout_s":NaN}`), "", 400, "not JSON"},
		{"permission mode", executePath, with("config", `{"permission_mode":"yolo"}`), "", 400, "config.permission_mode: must be one of default, accept_edits, plan, bypass"},
		// Size and headers.
		{"huge body", executePath, strings.Repeat(" ", maxBodyBytes+1), "", 413, "body: at most 1114112 bytes"},
		{"form", executePath, "a=b", "Content-Type: application/x-www-form-urlencoded", 415, "Content-Type: must be application/json"},
		{"text", executePath, with("message", `"m"`), "Content-Type: text/plain", 415, "Content-Type"},
		{"malformed type", executePath, with("message", `"m"`), "Content-Type: ;", 415, "Content-Type"},
		{"other charset", executePath, with("message", `"m"`), "Content-Type: application/json; charset=latin1", 415, "charset must be utf-8"},
		{"compressed", executePath, "x", "Content-Encoding: gzip", 415, "Content-Encoding"},
		{"not acceptable", executePath, with("message", `"m"`), "Accept: text/html", 406, "Accept: must allow"},
		{"refused by weight", executePath, with("message", `"m"`), "Accept: */*;q=0", 406, "Accept"},
		{"idempotency key with a space", executePath, with("message", `"m"`), "Idempotency-Key: a b", 400, "Idempotency-Key: only visible"},
		{"long idempotency key", executePath, with("message", `"m"`), "Idempotency-Key: " + long[:256], 400, "Idempotency-Key: must be given once"},
		// Exec.
		{"no command", execPath, `{}`, "", 400, "command: must be a list"},
		{"empty list", execPath, `{"command":[]}`, "", 400, "command: must be a list"},
		{"empty program", execPath, `{"command":["","a"]}`, "", 400, "command: must be a list"},
		{"empty text", execPath, `{"command":""}`, "", 400, "command: must be a list"},
		{"number as command", execPath, `{"command":5}`, "", 400, "command: must be a string, not a number"},
		{"number in command", execPath, `{"command":["a",5]}`, "", 400, "command: must be a string, not a number"},
		{"NUL in command", execPath, `{"command":["a\u0000"]}`, "", 400, "command: must not contain NUL"},
		{"NUL in cwd", execPath, `{"command":"a","cwd":"\u0000"}`, "", 400, "cwd: must not contain NUL"},
		{"empty name in env", execPath, `{"command":"a","env":{"":"x"}}`, "", 400, `env: ""`},
		{"= in env", execPath, `{"command":"a","env":{"A=B":"x"}}`, "", 400, `env: "A=B"`},
		{"NUL in env", execPath, `{"command":"a","env":{"A":"\u0000"}}`, "", 400, `env: "A"`},
		{"number in env", execPath, `{"command":"a","env":{"A":1}}`, "", 400, "env: must be a string, not a number"},
		{"long command", execPath, `{"command":"` + long[:131072] + `"}`, "", 413, "command, env and cwd together"},
		{"long stdin", execPath, `{"command":"a","stdin":"` + long + `"}`, "", 413, "stdin: 524289 bytes"},
		{"negative timeout", execPath, `{"command":"a","timeout_s":-1}`, "", 400, "timeout_s: must be"},
		{"unknown field", execPath, `{"comand":"a"}`, "", 400, `unknown field "comand"; did you mean "command"?`},
		{"unknown field besides", execPath, `{"command":"a","std_in":"a"}`, "", 400, `did you mean "stdin"?`},
	} {
		t.Run(tt.path+" "+tt.name, func(t *testing.T) {
			f := newFake()
			var headers []string
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			p := problem(t, ask(t, New(f, Options{}), http.MethodPost, tt.path, tt.body, headers...))
			code := protocol.CodeInvalidRequest
			if tt.status == 413 {
				code = protocol.CodeTooLarge
			}
			if p.Status != tt.status || p.Code != code || !strings.Contains(p.Detail, tt.detail) {
				t.Errorf("got %d %s %q, want %d with %q", p.Status, p.Code, p.Detail, tt.status, tt.detail)
			}
			if len(f.submissions)+len(f.users) > 0 {
				t.Error("it reached the service")
			}
		})
	}
}

func TestGoodBodyReachesTheServiceWhole(t *testing.T) {
	f := newFake()
	w := ask(t, New(f, Options{}), http.MethodPost, executePath, `{
		"user_id": " a/..\u00e9\ud83d\ude00\\ud800", "message": "分析這個文件\u0000", "session_id": "session-456",
		"attachments": [{"id": "file-123", "type": "image/png"}, {"id": "file-124"}],
		"config": {"agent": "shell", "model": "m", "max_tokens": 4096, "max_turns": 3, "system": "s",
			"timeout_s": 1.5, "permission_mode": "accept_edits"}}`,
		"Content-Type: application/json; charset=UTF-8", "Idempotency-Key: k-1")
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	want := []Submission{{
		Request: protocol.ExecuteRequest{
			UserID: ` a/..é😀\ud800`, Message: "分析這個文件\x00", SessionID: "session-456",
			Attachments: []protocol.Attachment{{ID: "file-123", Type: "image/png"}, {ID: "file-124"}},
			Config: protocol.RunConfig{
				Agent: "shell", Model: "m", MaxTokens: 4096, MaxTurns: 3, System: "s",
				TimeoutSeconds: 1.5, PermissionMode: "accept_edits",
			},
		},
		IdempotencyKey: "k-1", Caller: LocalCaller,
	}}
	if diff := cmp.Diff(want, f.submissions); diff != "" {
		t.Error(diff)
	}
}

// The largest request that is let through must fit in one JSON-RPC line, even
// where encoding/json needs six bytes for one.
func TestLargestRequestsFitInOneLineToTheWorker(t *testing.T) {
	worst := func(n int) string { return strings.Repeat("\x01", n) }
	attachment := protocol.Attachment{ID: strings.Repeat("<", maxNameBytes), Type: strings.Repeat("<", maxMediaTypeBytes)}
	execute := protocol.ExecuteRequest{
		UserID: strings.Repeat("<", protocol.MaxUserIDBytes), SessionID: strings.Repeat("a", protocol.MaxSessionIDBytes),
		Message: worst(protocol.MaxMessageBytes),
		Config: protocol.RunConfig{
			Agent: strings.Repeat("<", maxNameBytes), Model: strings.Repeat("<", maxNameBytes), System: worst(maxSystemBytes),
			MaxTokens: maxTokens, MaxTurns: maxTurns, TimeoutSeconds: maxTimeoutSeconds, PermissionMode: "accept_edits",
		},
	}
	for range maxAttachments {
		execute.Attachments = append(execute.Attachments, attachment)
	}
	exec := protocol.ExecRequest{Stdin: worst(protocol.MaxMessageBytes), Command: protocol.Command{Args: []string{worst(maxCommandBytes - 1)}}}
	exec.Command.Args[0] = strings.Repeat("<", maxCommandBytes-1)
	if err := checkExecute(execute); err != nil {
		t.Fatal(err)
	}
	if err := checkExec(exec); err != nil {
		t.Fatal(err)
	}
	const envelope = 1 << 10 // of JSON-RPC, run id and method
	for _, v := range []any{execute, exec} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if len(b)+envelope > protocol.MaxLineBytes {
			t.Errorf("%T: %d bytes, a line has %d", v, len(b), protocol.MaxLineBytes)
		}
	}
}

func TestFormFollowsAccept(t *testing.T) {
	for _, tt := range []struct {
		accept []string
		want   form
	}{
		{nil, formResult},
		{[]string{""}, formResult},
		{[]string{"*/*"}, formResult},
		{[]string{"application/json"}, formResult},
		{[]string{"application/*"}, formResult},
		{[]string{"text/event-stream"}, formEvents},
		{[]string{"TEXT/Event-Stream; charset=utf-8"}, formEvents},
		{[]string{"text/*"}, formEvents},
		{[]string{"text/event-stream, */*"}, formEvents},
		{[]string{"application/json, text/event-stream"}, formEvents},
		{[]string{"application/json", "text/event-stream"}, formEvents},
		{[]string{"text/event-stream;q=0.5, application/json"}, formResult},
		{[]string{"text/event-stream;q=0.5, */*;q=0.1"}, formEvents},
		{[]string{"text/event-stream;q=0, */*"}, formResult},
		{[]string{"application/json;q=0, */*"}, formEvents},
		{[]string{"text/html, application/xhtml+xml, */*;q=0.8"}, formResult},
		{[]string{"garbage, ;;, application/json"}, formResult},
		{[]string{"text/event-stream;q=NaN, application/json"}, formResult},
	} {
		h := http.Header{}
		if tt.accept != nil {
			h["Accept"] = tt.accept
		}
		if got, err := chooseForm(h); err != nil || got != tt.want {
			t.Errorf("%q: form %d, %v; want %d", tt.accept, got, err, tt.want)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{
		`{"user_id":"u","message":"m"}`, `{"user_id":"\ud83d\ude00","config":{"max_tokens":1}}`,
		`{"attachments":[{"id":"a"},{"x":[{}]}]}`, `null`, `[`, `{"config":null,"attachments":[null]}`, "{\"user_id\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var req protocol.ExecuteRequest
		if err := decodeJSON(body, &req); err != nil {
			if protocol.CodeOf(err) != protocol.CodeInvalidRequest {
				t.Fatalf("refused as %v", err)
			}
			return
		}
		// What was let through says the same once more.
		again, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		var second protocol.ExecuteRequest
		if err := decodeJSON(again, &second); err != nil {
			t.Fatalf("%q refused after %q passed: %v", again, body, err)
		}
		if err := checkExecute(req); err == nil && len(req.Attachments) > 0 {
			if diff := cmp.Diff(req, second); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func FuzzResumePoint(f *testing.F) {
	for _, seed := range []string{"0", "1", "007", "9223372036854775807", "9223372036854775808", "-1", "+1", "", " 1", "1e3", "１"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		seq, err := parseSeq(s)
		if err != nil {
			return
		}
		if seq < 0 || strings.Trim(s, "0123456789") != "" {
			t.Fatalf("%q read as %d", s, seq)
		}
		r := &http.Request{Header: http.Header{"Last-Event-Id": {s}}, URL: mustParse(t, "/?after=5")}
		if got, err := resumePoint(r); err != nil || got != seq {
			t.Fatalf("Last-Event-ID %q gives %d, %v", s, got, err)
		}
	})
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
