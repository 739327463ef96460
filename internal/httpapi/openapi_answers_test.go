package httpapi

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"carrel/internal/openapitest"
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
