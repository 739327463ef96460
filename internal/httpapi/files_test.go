package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carrel/protocol"
)

func TestFileIsServedInPartsAndUnderConditions(t *testing.T) {
	tests := []struct {
		name, method string
		headers      []string
		status       int
		body         string
	}{
		{name: "whole", status: 200, body: "0123456789"},
		{name: "head", method: "HEAD", status: 200},
		{name: "part", headers: []string{"Range: bytes=2-4"}, status: 206, body: "234"},
		{name: "tail", headers: []string{"Range: bytes=-3"}, status: 206, body: "789"},
		{name: "part of the same", headers: []string{"Range: bytes=2-", `If-Range: "1"`}, status: 206, body: "23456789"},
		{name: "part of another", headers: []string{"Range: bytes=2-", `If-Range: "0"`}, status: 200, body: "0123456789"},
		{name: "known", headers: []string{`If-None-Match: "1"`}, status: 304},
		{name: "known since", headers: []string{"If-Modified-Since: Fri, 02 Jan 2026 03:04:05 GMT"}, status: 304},
		{name: "unknown", headers: []string{`If-None-Match: "0"`}, status: 200, body: "0123456789"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = "GET"
			}
			w := ask(t, New(newFake(), Options{}), method, "/v1/users/u/files/f", "", tt.headers...)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%d %q", w.Code, w.Body)
			}
			h := w.Header()
			if h.Get("Etag") != `"1"` || h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") {
				t.Errorf("headers %v", h)
			}
			if tt.status == 200 && (h.Get("Content-Type") != "application/octet-stream" || h.Get("Last-Modified") == "") {
				t.Errorf("headers %v", h)
			}
		})
	}
}

func TestRefusalsOfFilesAreProblems(t *testing.T) {
	tests := []struct {
		name, method, target, header string
		status                       int
		code                         protocol.Code
	}{
		{"range outside", "GET", "f", "Range: bytes=10-", 416, protocol.CodeInvalidRequest},
		{"range malformed", "GET", "f", "Range: bytes=x", 416, protocol.CodeInvalidRequest},
		{"not that one", "GET", "f", `If-Match: "0"`, 412, protocol.CodeConflict},
		{"not there", "GET", "g", "", 404, protocol.CodeNotFound},
		{"a slash in a name", "GET", "a%2Ff", "", 404, protocol.CodeNotFound},
		{"archive of a file", "GET", "f?archive=tar", "", 409, protocol.CodeConflict},
		{"archive unknown", "GET", "d?archive=zip", "", 400, protocol.CodeInvalidRequest},
		{"too many", "GET", "d?limit=10001", "", 400, protocol.CodeInvalidRequest},
		{"replaced meanwhile", "PUT", "f", `If-Match: "0"`, 412, protocol.CodeConflict},
		{"must be there", "PUT", "g", "If-Match: *", 412, protocol.CodeConflict},
		{"must not be there", "PUT", "f", "If-None-Match: *", 412, protocol.CodeConflict},
		{"weak tag", "PUT", "f", `If-Match: W/"1"`, 412, protocol.CodeConflict},
		{"no tag", "PUT", "f", "If-Match: 1", 400, protocol.CodeInvalidRequest},
		{"empty tag", "PUT", "f", "If-Match: ", 400, protocol.CodeInvalidRequest},
		{"part of a file", "PUT", "f", "Content-Range: bytes 0-1/10", 400, protocol.CodeInvalidRequest},
		{"archive with a tag", "PUT", "d?archive=tar", "If-Match: *", 400, protocol.CodeInvalidRequest},
		{"delete another", "DELETE", "f", `If-Match: "0"`, 412, protocol.CodeConflict},
		{"delete all", "DELETE", "", "", 405, protocol.CodeInvalidRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var headers []string
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			target := strings.TrimSuffix("/v1/users/u/files/"+tt.target, "/")
			w := ask(t, New(newFake(), Options{}), tt.method, target, "", headers...)
			if p := problem(t, w); p.Status != tt.status || p.Code != tt.code {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if w.Header().Get("Etag") != "" || w.Header().Get("Content-Disposition") != "" {
				t.Errorf("a problem has the file's headers: %v", w.Header())
			}
		})
	}
}

func TestFilesAreStoredListedAndArchived(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	if w := ask(t, h, "PUT", "/v1/users/u/files/a/new", "hi", "If-None-Match: *"); w.Code != 201 || w.Header().Get("Location") != "/v1/users/u/files/a/new" || w.Header().Get("Etag") != `"2"` {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := ask(t, h, "PUT", "/v1/users/u/files/f", "hi", `If-Match: "0", "1"`); w.Code != 200 || !strings.Contains(w.Body.String(), `"name":"hi"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, w := range []*httptest.ResponseRecorder{
		ask(t, h, "PUT", "/v1/users/u/files/d?archive=tar", "tar"),
		ask(t, h, "PUT", "/v1/users/u/files", "tar", "Content-Type: application/x-tar"),
	} {
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"entries":2`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if w := ask(t, h, "GET", "/v1/users/u/files/d?limit=7&cursor=c", ""); !strings.Contains(w.Body.String(), `"name":"c"`) || !strings.Contains(w.Body.String(), `"size":7`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, w := range []*httptest.ResponseRecorder{
		ask(t, h, "GET", "/v1/users/u/files?archive=tar", ""),
		ask(t, h, "GET", "/v1/users/u/files/d", "", "Accept: application/x-tar"),
	} {
		if r := w.Result(); w.Body.String() != "tar" || r.Trailer.Get("Carrel-Omitted") != "3" || r.Header.Get("Content-Type") != "application/x-tar" {
			t.Errorf("%s %v %v", w.Body, r.Header, r.Trailer)
		}
	}
	want := []string{"u:a/new 2", "u:f 2", "u:tar:d", "u:tar:", "u:d", "u:", "u:d"}
	if !slices.Equal(f.users, want) {
		t.Errorf("the service saw %q", f.users)
	}
}

// shrunk promises ten bytes and has four.
type shrunk struct{ fakeFile }

func (s shrunk) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b[:min(len(b), 4)])
	if at := s.Size() - int64(s.Len()); at > 4 {
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func (shrunk) Archive(_ context.Context, w io.Writer) (int, error) {
	_, err := w.Write(make([]byte, 4096))
	return 0, errors.Join(err, io.ErrUnexpectedEOF)
}

func TestAnswerCutShortDoesNotLookWhole(t *testing.T) {
	for name, kind := range map[string]protocol.FileType{"file": protocol.FileRegular, "archive": protocol.FileDirectory} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.onOpen = func(string) (OpenFile, error) {
				info := protocol.FileInfo{Type: kind, Size: 10, ModifiedAt: fakeTime}
				return shrunk{fakeFile{strings.NewReader("0123456789"), info}}, nil
			}
			server := httptest.NewServer(New(f, Options{}))
			defer server.Close()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/users/u/files/x", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", "application/x-tar, */*;q=0.5")
			resp, err := server.Client().Do(req)
			if err != nil {
				return // cut before its headers left
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("%d bytes came, and looked whole", len(body))
			}
		})
	}
}

// In a synctest bubble the clock is the test's: the upload is cut when nobody could
// still be sending, and not before.
func TestUploadMayBeSlowButNotStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := servePipes(t, New(newFake(), Options{SlowReader: 30 * time.Second}))
		defer stop()
		body, writer := io.Pipe()
		var sending sync.WaitGroup
		defer sending.Wait()
		sending.Go(func() {
			for range 20 { // ten minutes of a slow line
				<-time.After(29 * time.Second)
				if _, err := writer.Write(make([]byte, maxPieceBytes)); err != nil {
					return
				}
			}
			<-time.After(31 * time.Second)
			_, _ = writer.Write([]byte{0})
			_ = writer.Close()
		})
		transport := &http.Transport{DialContext: l.dial}
		defer transport.CloseIdleConnections()
		began := time.Now()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://x/v1/users/u/files/g", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if took := time.Since(began); resp.StatusCode != http.StatusRequestTimeout || took < 20*29*time.Second {
			t.Errorf("status %d after %s", resp.StatusCode, took)
		}
		_ = body.Close()
	})
}
