package httpapi

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"carrel/internal/openapitest"
	"carrel/protocol"
)

// documented is the document that every answer in these tests is held against.
var documented = sync.OnceValues(func() (*openapitest.Document, error) { return openapitest.New(description) }) //nolint:gochecknoglobals // read once a test binary

// checkDocumented holds an answer against the document.
func checkDocumented(t *testing.T, r *http.Request, body string, w *httptest.ResponseRecorder) {
	t.Helper()
	document, err := documented()
	if err != nil {
		t.Fatal(err)
	}
	answer := w.Result()
	err = document.Check(&openapitest.Exchange{
		Method: r.Method, URL: r.URL, Request: r.Header, RequestBody: []byte(body),
		Status: answer.StatusCode, Answer: answer.Header, Trailer: answer.Trailer, Body: w.Body.Bytes(),
	})
	if err != nil {
		t.Errorf("not as documented: %v", err)
	}
}

// Controls with the document itself: an answer that lacks something, has something of
// another type, or more, is found in each of its parts.
func TestChangedAnswerIsNotAsTheOpenAPIDocumentSays(t *testing.T) {
	f := newFake()
	id := f.add("u")
	f.emit(id, protocol.EventRunStarted, protocol.RunStarted{SessionID: "s", Agent: "shell"})
	f.emit(id, protocol.EventRunError, protocol.RunError{Code: protocol.CodeCanceled, Message: "canceled"})
	h := New(f, Options{})
	document, err := documented()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path   string
		within []string // the members that lead to the object that is changed
	}{
		{"/v1/runs/" + id, nil},
		{"/v1/runs/" + id, []string{"error"}},
		{"/v1/runs/none", nil},
		{"/v1/users/u/sandbox", []string{"limits"}},
		{"/v1/runs/" + id + "/events", nil},
		{"/v1/runs/" + id + "/events", []string{"data"}},
	} {
		r, w := send(t, h, http.MethodGet, tt.path, "")
		head, line, tail := "", w.Body.String(), ""
		if w.Header().Get("Content-Type") == mediaEvents {
			head, line, _ = strings.Cut(line, "data: ")
			head += "data: "
			line, tail, _ = strings.Cut(line, "\n")
			tail = "\n" + tail
		}
		check := func(body string) error {
			return document.Check(&openapitest.Exchange{
				Method: r.Method, URL: r.URL, Request: r.Header, Status: w.Code, Answer: w.Header(), Body: []byte(head + body + tail),
			})
		}
		if err := check(line); err != nil {
			t.Errorf("%s as it is: %v", tt.path, err)
		}
		for what, changed := range changes(t, line, tt.within) {
			if err := check(changed); err == nil {
				t.Errorf("%s: %v: %s is not found", tt.path, tt.within, what)
			}
		}
	}
}

// changes makes texts of an object of which one member is missing, another, or more.
func changes(t *testing.T, object string, within []string) map[string]string {
	t.Helper()
	made := map[string]string{}
	change := func(what string, how func(map[string]any)) {
		var all map[string]any
		if err := json.Unmarshal([]byte(object), &all); err != nil {
			t.Fatal(err)
		}
		at := all
		for _, name := range within {
			at = at[name].(map[string]any) //nolint:forcetypeassert // the test says so
		}
		how(at)
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		made[what] = string(b)
	}
	var members map[string]any
	change("a member more", func(at map[string]any) {
		members = maps.Clone(at)
		at["more"] = 1
	})
	optional := []string{"error", "retry_after_s", "cause", "usage"}
	for name := range members {
		change("another type of "+name, func(at map[string]any) { at[name] = []any{true} })
		if !slices.Contains(optional, name) {
			change("no "+name, func(at map[string]any) { delete(at, name) })
		}
	}
	return made
}
