package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"carrel/protocol"
)

func TestSessionRoutesRefuseWhatIsNoSession(t *testing.T) {
	h := New(newFake(), Options{})
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               protocol.Code
	}{
		"shown":                       {"GET", "/v1/users/u/sessions/s", "", 200, ""},
		"unknown":                     {"GET", "/v1/users/u/sessions/t", "", 404, protocol.CodeNotFound},
		"not an id":                   {"GET", "/v1/users/u/sessions/a%2Fb", "", 400, protocol.CodeInvalidRequest},
		"deleted, unknown":            {"DELETE", "/v1/users/u/sessions/t", "", 404, protocol.CodeNotFound},
		"deleted, not an id":          {"DELETE", "/v1/users/u/sessions/%2e%2e%2f", "", 400, protocol.CodeInvalidRequest},
		"forked":                      {"POST", "/v1/users/u/sessions/s/fork", "{}", 201, ""},
		"forked, unknown":             {"POST", "/v1/users/u/sessions/t/fork", "{}", 404, protocol.CodeNotFound},
		"forked into what is no id":   {"POST", "/v1/users/u/sessions/s/fork", `{"session_id":"../x"}`, 400, protocol.CodeInvalidRequest},
		"forked with an unknown name": {"POST", "/v1/users/u/sessions/s/fork", `{"to":"x"}`, 400, protocol.CodeInvalidRequest},
		"of what is no user":          {"GET", "/v1/users/%0a/sessions", "", 400, protocol.CodeInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			w := ask(t, h, c.method, c.path, c.body)
			var told struct {
				Code protocol.Code `json:"code"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil || w.Code != c.status || told.Code != c.code {
				t.Errorf("status %d, %s", w.Code, w.Body)
			}
		})
	}
}

// A transcript may be 64 MiB of what HTML would have escaped.
func TestTranscriptDoesNotGrowOnItsWayOut(t *testing.T) {
	entry := []byte(`"` + string(bytes.Repeat([]byte("<"), 1<<16)) + `"`)
	w := httptest.NewRecorder()
	a := &api{opts: Options{SlowReader: time.Minute}}
	if err := a.writeJSON(w, http.StatusOK, protocol.Transcript{Entries: []json.RawMessage{entry}}); err != nil {
		t.Fatal(err)
	}
	if got := w.Body.Len(); got > len(entry)+200 {
		t.Errorf("%d bytes became %d", len(entry), got)
	}
}
