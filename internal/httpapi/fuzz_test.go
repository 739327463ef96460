package httpapi

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"carrel/client"
	"carrel/protocol"
)

// FuzzRequest sends any request to the whole handler: one of the routes, or a path of
// no route, with any query, body and headers. The answer is always a whole one of ours
// (see checkAnswer), and the daemon never says that the fault was its own.
func FuzzRequest(f *testing.F) {
	for i, r := range Routes() {
		target := strings.NewReplacer("{user_id}", "ana", "{run_id}", "run_1", "{session_id}", "s", "{approval_id}", "apr_1").Replace(r.Pattern)
		f.Add(uint8(i), target, "", "", "", []byte(`{"user_id":"u","message":"m"}`))
	}
	form := "--b\r\nContent-Disposition: form-data; name=f; filename=\"a\x01.txt\"\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n"
	const users, runs = "/v1/users/%2E%2E%2Fb", "/v1/runs/run_1"
	for _, seed := range []struct{ target, accept, content, last, body string }{
		{"/v1/execute", "text/event-stream", "application/json", "", `{"user_id":"u","message":"m"}`},
		{"/v1/execute", "*/*;q=0", "text/plain", "", `{"user_id":"u","message":"m","config":{"timeout_s":1e-9}}`},
		{"/v1/ag-ui", "text/event-stream", "application/json", "a%0Ab", aguiBody(aguiUser, "")},
		{"/v1/ag-ui", "", "", "%C3%A4", aguiBody(aguiUser+`,{"id":"\u2028","role":"assistant"}`, "")},
		{"/v1/ag-ui", "", "", "u", strings.Replace(aguiResume(allows("run_1.apr_1")), "{}", `{"carrel":{"config":{"system":"x"}}}`, 1)},
		{users + "/exec", "text/event-stream", "", "", `{"command":["a",""],"env":{"A=":"b"}}`},
		{users + "/exec", "", "", "", `{"command":"\u0000","cwd":"x"}`},
		{users + "/attachments?name=%0d%0aX:", "", "multipart/form-data; boundary=b", "", form},
		{users + "/attachments?name=a&name=b", "", "multipart/form-data; boundary=\"\"", "", form},
		{users + "/attachments", "", "a/b;;", "", "\xff"},
		{runs + "/approvals/apr_1", "", "application/json; charset=latin1", "", `{"decision":"allow","reason":"\ud800"}`},
		{runs + "/approvals/%0d%0a", "", "", "", `{"decision":"deny"}`},
		{runs + "/events?after=9223372036854775808", "", "", "1\r\nid: 2", ""},
		{runs + "/events?after=1", "", "", "2", ""},
		{"/v1/users/a/sessions/s/fork", "", "", "", `{"session_id":"../x"}`},
		{"/v1/users/%ff/sandbox?purge=yes", "", "", "", ""},
		{"/v1/runs?limit=0&status=x&cursor=%00", "", "", "", ""},
		{"//v1//runs/../..", "", "", "", ""},
		{"/v1/runs/%", "", "", "", ""},
		{"/?a;b", "", "", "", ""},
	} {
		for _, method := range []uint8{0, 1} {
			f.Add(method, seed.target, seed.accept, seed.content, seed.last, []byte(seed.body))
		}
	}
	methods := []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodHead, http.MethodPut, "X"}
	f.Fuzz(func(t *testing.T, method uint8, target, accept, content, last string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") || len(body) > 64<<10 {
			return // net/http answers that, and no handler sees it
		}
		service := newFake()
		run := service.add("u") // run_1
		service.emit(run, protocol.EventRunStarted, protocol.RunStarted{SessionID: "s"})
		service.emit(run, protocol.EventRunFinished, result(run, "done\r\nid: 7\n\n"))
		r := httptest.NewRequestWithContext(t.Context(), methods[int(method)%len(methods)], "/", nil)
		r.URL, r.RequestURI = u, target
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			r.Body, r.ContentLength = readCloser{bytes.NewReader(body)}, int64(len(body))
		}
		for name, value := range map[string]string{"Accept": accept, "Content-Type": content, "Last-Event-ID": last, "Idempotency-Key": last, "X-Carrel-User": last, "Prefer": accept} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		New(service, Options{}).ServeHTTP(w, r)
		checkAnswer(t, r.Method, w)
		for _, user := range service.users {
			if err := protocol.CheckUserID(user); err != nil {
				t.Errorf("the service saw user %q: %v", user, err)
			}
		}
		for _, s := range service.submissions {
			if err := checkExecute(s.Request); err != nil {
				t.Errorf("the service saw %+v: %v", s.Request, err)
			}
		}
		if service.readers != 0 {
			t.Errorf("%d readers are left open", service.readers)
		}
	})
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// checkAnswer holds an answer against what every answer must be: a problem document
// whose code fits its status, JSON, frames, or nothing where nothing is due; with
// headers of one line.
func checkAnswer(t *testing.T, method string, w *httptest.ResponseRecorder) {
	t.Helper()
	for name, values := range w.Header() {
		if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
			t.Errorf("header %q: %q", name, values)
		}
	}
	media, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	switch {
	case w.Code >= http.StatusBadRequest:
		p := problem(t, w)
		others := []int{http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusUnsupportedMediaType, http.StatusRequestTimeout}
		if !p.Code.Known() || w.Code != p.Code.HTTPStatus() && (p.Code != protocol.CodeInvalidRequest || !slices.Contains(others, w.Code)) {
			t.Errorf("status %d with code %q", w.Code, p.Code)
		}
		if p.Code == protocol.CodeInternal || !utf8.ValidString(p.Detail) {
			t.Errorf("answer %q", w.Body)
		}
	case w.Code == http.StatusNoContent:
		if w.Body.Len() > 0 {
			t.Errorf("204 with %q", w.Body)
		}
	case media == "text/event-stream":
		checkFrames(t, w.Body.String())
	case media != "application/json" || !json.Valid(w.Body.Bytes()) && method != http.MethodHead:
		t.Errorf("status %d, %q: %q", w.Code, media, w.Body)
	}
}

// checkFrames reads an answer of events as the standard has it (WHATWG HTML, 9.2), in
// the plainest way: it is made of whole frames, each field once, their data JSON.
func checkFrames(t *testing.T, text string) {
	t.Helper()
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	rest, whole := strings.CutSuffix(text, "\n\n")
	if !whole {
		if text != "" {
			t.Errorf("half a frame at the end of %q", text)
		}
		return
	}
	for one := range strings.SplitSeq(rest, "\n\n") {
		fields := make(map[string]string)
		for line := range strings.SplitSeq(one, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			if _, twice := fields[name]; twice {
				t.Errorf("%q twice in the frame %q", name, one)
			}
			fields[name] = value
		}
		if _, comment := fields[""]; comment && len(fields) == 1 {
			continue
		}
		delete(fields, "id")
		var ofAGUI struct{ Type string } // its frames are data alone
		if len(fields) == 1 && json.Unmarshal([]byte(fields["data"]), &ofAGUI) == nil && isName(ofAGUI.Type) {
			continue
		}
		if len(fields) != 2 || !isName(fields["event"]) || !json.Valid([]byte(fields["data"])) {
			t.Errorf("frame %q", one)
		}
	}
}

// FuzzEventReachesTheClient sends an event of any content through the handler's
// encoder and the client's decoder: it comes out as it went in, and alone.
func FuzzEventReachesTheClient(f *testing.F) {
	for _, text := range []string{"", "a\nb", "\r\n\r\nid: 9\ndata: x\n\n", "\x00\u2028\ufeff", "\xff", "</script>"} {
		f.Add(text, []byte(`{"text":`+strconv.Quote(text)+`}`), "TEXT_DELTA")
		f.Add(text, []byte("{\r\n\"a\"\n:\r1\n}\n"), "TEXT_DELTA")
		f.Add(text, []byte(nil), "X\nid: 9")
	}
	f.Fuzz(func(t *testing.T, text string, data []byte, kind string) {
		service := newFake()
		id := service.add("u")
		service.emit(id, protocol.EventRunStarted, protocol.RunStarted{SessionID: "s"})
		service.emit(id, protocol.EventTextDelta, protocol.TextDelta{Text: text})
		legal := isName(kind) && !protocol.EventType(kind).Ends() && json.Valid(data)
		if legal || !isName(kind) {
			service.emit(id, protocol.EventTextDelta, nil)
			last := &service.runs[id].events[2]
			last.Type, last.Data = protocol.EventType(kind), data
		}
		service.emit(id, protocol.EventRunFinished, result(id, text))
		if !isName(kind) { // the stream is cut before it
			w := ask(t, New(service, Options{}), http.MethodGet, "/v1/runs/"+id+"/events", "")
			checkAnswer(t, http.MethodGet, w)
			if n := strings.Count(w.Body.String(), "\nevent: "); n > 2 {
				t.Errorf("%d frames with a type %q: %q", n, kind, w.Body)
			}
			return
		}
		got, err := followAll(t, service, id)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i].Data = compacted(t, got[i].Data)
		}
		want := slices.Clone(service.runs[id].events)
		for i := range want {
			want[i].Data = compacted(t, want[i].Data)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sent and received (-sent +received):\n%s", diff)
		}
	})
}

// followAll reads a run's events as the Go client does, over no network.
func followAll(t *testing.T, service *fakeService, id string) (got []protocol.Event, err error) {
	t.Helper()
	c, err := client.New("http://carrel.test", client.Options{HTTPClient: &http.Client{Transport: direct{New(service, Options{})}}})
	if err != nil {
		t.Fatal(err)
	}
	for ev, err := range c.Events(t.Context(), id, 0) {
		if err != nil {
			return got, err
		}
		got = append(got, ev)
	}
	return got, nil
}

// direct carries requests straight to a handler.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	served := r.Clone(r.Context())
	served.RequestURI = r.URL.RequestURI()
	if served.Body == nil {
		served.Body = http.NoBody
	}
	d.ServeHTTP(w, served)
	answer := w.Result()
	answer.Request = r
	return answer, nil
}

func compacted(t *testing.T, data json.RawMessage) json.RawMessage {
	t.Helper()
	if len(data) == 0 {
		return json.RawMessage("{}")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return b.Bytes()
}

// FuzzIDsInPaths puts ids into a path as clients do: percent-encoded by their
// library, by hand where that leaves something, or not at all. The service sees the
// very id, or the request is refused; it never sees another.
func FuzzIDsInPaths(f *testing.F) {
	for _, id := range []string{"ana", "a/b", "..", ".", "%2e%2e", "a%2Fb", "a b", "a+b", "é", "\xff", "\n", "", "?", "#", ";", "用戶", "a\\b", strings.Repeat("x", 257)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		hex := ""
		for i := range len(id) {
			hex += "%" + strconv.FormatUint(uint64(id[i])|0x100, 16)[1:]
		}
		for _, escaped := range []string{url.PathEscape(id), hex, id} {
			service := newFake()
			u, err := url.ParseRequestURI("/v1/users/" + escaped + "/sandbox")
			if err != nil {
				continue // only the raw id
			}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.URL = u
			w := httptest.NewRecorder()
			New(service, Options{}).ServeHTTP(w, r)
			checkAnswer(t, r.Method, w)
			isRaw := escaped == id && url.PathEscape(id) != id
			legal := protocol.CheckUserID(id) == nil
			switch {
			case len(service.users) == 0 && legal && !isRaw:
				t.Errorf("%q as %s: answer %d %s", id, escaped, w.Code, w.Body)
			case len(service.users) > 0 && !isRaw && (!legal || service.users[0] != id):
				t.Errorf("%q as %s: the service saw %q", id, escaped, service.users)
			case len(service.users) > 0 && isRaw && protocol.CheckUserID(service.users[0]) != nil:
				t.Errorf("raw %q: the service saw %q", id, service.users)
			}
		}
	})
}
