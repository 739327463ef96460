package main

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"carrel/client"
	"carrel/internal/httpapi"
	"carrel/internal/openapitest"
)

// documented is the OpenAPI document that the answers of these tests' daemons are held
// against. TestDaemonAnswersAsDocumented holds it against the one they serve.
var documented = sync.OnceValues(func() (*openapitest.Document, error) { //nolint:gochecknoglobals // read once a test binary
	return openapitest.New(httpapi.OpenAPI(""))
})

// checking is an HTTP client of whose answers none may be other than documented.
func checking(t *testing.T, document *openapitest.Document) *http.Client {
	t.Helper()
	base := &http.Transport{ExpectContinueTimeout: 5 * time.Second} // as client has it
	t.Cleanup(base.CloseIdleConnections)
	report := func(err error) { t.Errorf("not as documented: %v", err) }
	return &http.Client{
		Transport:     &openapitest.Transport{Document: document, Base: base, Report: report},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// checkedClients are the two that a test asks a daemon with.
func checkedClients(t *testing.T, url string, key client.Key) (*http.Client, *client.Client) {
	t.Helper()
	document, err := documented()
	if err != nil {
		t.Fatal(err)
	}
	plain := checking(t, document)
	c, err := client.New(url, client.Options{Key: key, HTTPClient: plain})
	if err != nil {
		t.Fatal(err)
	}
	return plain, c
}
