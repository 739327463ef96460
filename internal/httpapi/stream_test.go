package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// readerOf gives batches, then err.
type readerOf struct {
	batches [][]protocol.Event
	err     error
	closed  int
}

func (r *readerOf) Next(ctx context.Context) ([]protocol.Event, error) {
	if len(r.batches) == 0 {
		if r.err == nil {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, r.err
	}
	batch := r.batches[0]
	r.batches = r.batches[1:]
	return batch, nil
}

func (r *readerOf) Close() { r.closed++ }

func (r *readerOf) service() *fakeService {
	f := newFake()
	f.onEvents = func(context.Context, string, int64) (EventReader, error) { return r, nil }
	return f
}

func event(seq int64, data string) protocol.Event {
	return protocol.Event{RunID: "run_1", Seq: seq, Time: fakeTime, Type: protocol.EventTextDelta, Data: json.RawMessage(data)}
}

const eventsPath = "/v1/runs/run_1/events"

func TestQuietStreamIsKeptByComments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("u")
		l, stop := servePipes(t, New(f, Options{}))
		began, buf := time.Now(), make([]byte, 64)
		c := connect(t, l, "GET "+eventsPath+" HTTP/1.1")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if took := time.Since(began); took != headWait {
			t.Errorf("the head alone after %s, want %s", took, headWait)
		}
		for i := range 3 {
			n, err := resp.Body.Read(buf)
			if err != nil || string(buf[:n]) != ": keep-alive\n\n" {
				t.Fatalf("read %q, %v", buf[:n], err)
			}
			if took, want := time.Since(began), time.Duration(i+1)*defaultKeepAlive; took != want {
				t.Errorf("comment %d after %s, want %s", i, took, want)
			}
		}
		f.emit("run_1", protocol.EventRunFinished, result("run_1", ""))
		rest, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasPrefix(string(rest), "id: 1\n") {
			t.Errorf("then %q, %v", rest, err)
		}
		c.Close()
		stop()
	})
}

func TestReaderThatStandsStillIsCutOffAndOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("u")
		l, stop := servePipes(t, New(f, Options{}))
		stuck := connect(t, l, "GET "+eventsPath+" HTTP/1.1") // reads nothing
		lively := connect(t, l, "GET "+eventsPath+" HTTP/1.1")
		read := make(chan string)
		go func() {
			all, _ := io.ReadAll(lively.r) // the end of the connection is its end
			read <- string(all)
		}()
		f.emit("run_1", protocol.EventTextDelta, protocol.TextDelta{Text: "x"})
		pass(defaultSlowReader - time.Second)
		if n := f.openReaders(); n != 2 {
			t.Fatalf("%d readers before the time is up", n)
		}
		pass(2 * time.Second)
		if n := f.openReaders(); n != 1 {
			t.Errorf("%d readers after it", n)
		}
		if rest, err := io.ReadAll(stuck); err != nil || len(rest) > 0 {
			t.Errorf("the connection gives %q, %v", rest, err)
		}
		f.emit("run_1", protocol.EventRunFinished, result("run_1", ""))
		pass(3 * time.Minute) // the idle connection ends too
		if got := <-read; !strings.Contains(got, "RUN_FINISHED") {
			t.Errorf("the other reader got %q", got)
		}
		stuck.Close()
		lively.Close()
		stop()
	})
}

// 1 MiB at 16 KiB in 5 s takes more than five minutes, ten times SlowReader.
func TestReaderThatIsMerelySlowGetsEverything(t *testing.T) {
	big := `{"text":"` + strings.Repeat("x", 1<<20) + `"}`
	for name, ask := range map[string]struct {
		head    string
		service *fakeService
	}{
		"events": {"GET " + eventsPath + " HTTP/1.1\r\nConnection: close", (&readerOf{batches: [][]protocol.Event{{event(1, big)}}, err: io.EOF}).service()},
		"JSON": {"POST /v1/users/u/exec HTTP/1.1\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"command\":\"a\"}", &fakeService{
			onExec: func(context.Context, string, protocol.ExecRequest, ExecSink) (protocol.ExecResult, error) {
				return protocol.ExecResult{Stdout: big}, nil
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, stop := servePipes(t, New(ask.service, Options{}))
				conn, err := l.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				head, body, _ := strings.Cut(ask.head, "\r\n\r\n")
				if _, err := io.WriteString(conn, head+"\r\nHost: x\r\n\r\n"+body); err != nil {
					t.Fatal(err)
				}
				got, buf := 0, make([]byte, 16<<10)
				for {
					n, err := io.ReadFull(conn, buf)
					got += n
					if err != nil {
						break
					}
					<-time.After(5 * time.Second)
				}
				if got < len(big) {
					t.Errorf("%d bytes, cut off before %d", got, len(big))
				}
				stop()
			})
		})
	}
}

func TestBodyThatDoesNotArriveIsGivenUp(t *testing.T) {
	for head, status := range map[string]int{
		"POST /v1/execute HTTP/1.1":                             http.StatusRequestTimeout,
		"POST /v1/execute HTTP/1.1\r\nAccept: text/html":        http.StatusNotAcceptable,
		"POST /v1/execute HTTP/1.1\r\nContent-Type: text/plain": http.StatusUnsupportedMediaType,
		"POST /nowhere HTTP/1.1":                                http.StatusNotFound,
		"DELETE /v1/users/u/sandbox HTTP/1.1":                   http.StatusNoContent,
		"GET " + eventsPath + " HTTP/1.1":                       http.StatusBadRequest,
	} {
		t.Run(head, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, stop := servePipes(t, New(newFake(), Options{}))
				c := connect(t, l, head+"\r\nContent-Length: 100")
				defer c.Close()
				began := time.Now()
				go func() { _, _ = io.WriteString(c, "{") }() // the server may not read it
				resp, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if resp.StatusCode != status || time.Since(began) > bodyTimeout+drainTimeout {
					t.Errorf("status %d after %s, want %d", resp.StatusCode, time.Since(began), status)
				}
				stop()
			})
		})
	}
}

func TestBatchGoesOutInOneWriteAndIsFlushed(t *testing.T) {
	batch := []protocol.Event{event(1, `{"text":"a"}`), event(2, `{"text":"b"}`), event(3, `{"text":"c"}`)}
	w := &countingWriter{header: http.Header{}}
	r := request(t, http.MethodGet, "http://x"+eventsPath, "")
	New((&readerOf{batches: [][]protocol.Event{batch, batch[:1]}, err: io.EOF}).service(), Options{}).ServeHTTP(w, r)
	if diff := cmp.Diff([]string{"head", "write 3", "flush", "write 1", "flush"}, w.did); diff != "" {
		t.Error(diff)
	}
}

type countingWriter struct {
	header http.Header
	did    []string
}

func (w *countingWriter) Header() http.Header { return w.header }
func (w *countingWriter) WriteHeader(int)     { w.did = append(w.did, "head") }
func (w *countingWriter) Flush()              { w.did = append(w.did, "flush") }

func (w *countingWriter) Write(b []byte) (int, error) {
	w.did = append(w.did, "write "+string(rune('0'+bytes.Count(b, []byte("\n\n")))))
	return len(b), nil
}

// The head is due where no event will ever go with it, too.
func TestStreamWithoutAnEventHasItsHead(t *testing.T) {
	f := newFake()
	f.add("u") // goes on
	ended := f.add("u")
	f.emit(ended, protocol.EventRunStarted, protocol.RunStarted{})
	f.emit(ended, protocol.EventRunFinished, protocol.Result{})
	h := New(f, Options{})
	for _, c := range []struct{ method, path string }{
		{http.MethodHead, eventsPath},
		{http.MethodHead, "/v1/runs/" + ended + "/events"},
		{http.MethodGet, "/v1/runs/" + ended + "/events?after=2"},
	} {
		w := ask(t, h, c.method, c.path, "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" || !w.Flushed || w.Body.Len() > 0 {
			t.Errorf("%s %s: %d %v %q", c.method, c.path, w.Code, w.Header(), w.Body)
		}
	}
}

func TestErrorAfterTheHeadersIsACommentAndNeverAnEvent(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    *readerOf
		want string
	}{
		{
			"coded", &readerOf{batches: [][]protocol.Event{{event(1, `{"text":""}`)}}, err: protocol.Errorf(protocol.CodeShuttingDown, "bye\n\nevent: RUN_FINISHED\ndata: {}")},
			": error shutting_down: bye  event: RUN_FINISHED data: {}\n\n",
		},
		{
			"of our own", &readerOf{batches: [][]protocol.Event{{event(1, `{"text":""}`)}}, err: errors.New("sql: /secret")},
			": error internal: an error of the daemon's own; its log tells more under the X-Request-Id of this answer\n\n",
		},
		{
			"malformed event", &readerOf{batches: [][]protocol.Event{{event(1, `{"text":""}`), {RunID: "run_1", Seq: 2, Type: "A\nid: 9"}}}},
			": error internal: an error of the daemon's own; its log tells more under the X-Request-Id of this answer\n\n",
		},
		{
			"data that is no JSON", &readerOf{batches: [][]protocol.Event{{event(1, `{"text":""}`), event(2, "x\n\ndata: y")}}},
			": error internal: an error of the daemon's own; its log tells more under the X-Request-Id of this answer\n\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			h := New(tt.r.service(), Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			w := ask(t, h, http.MethodGet, eventsPath, "")
			first, err := appendEvent(nil, event(1, `{"text":""}`))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(first)+tt.want, w.Body.String()); diff != "" || w.Code != 200 {
				t.Errorf("%d %s", w.Code, diff)
			}
			if !strings.Contains(log.String(), "error=") || tt.r.closed != 1 {
				t.Errorf("closed %d times, log %s", tt.r.closed, log.String())
			}
		})
	}
}

func TestExecErrorAfterOutputIsAComment(t *testing.T) {
	f := newFake()
	f.onExec = func(_ context.Context, _ string, _ protocol.ExecRequest, sink ExecSink) (protocol.ExecResult, error) {
		return protocol.ExecResult{}, errors.Join(sink(protocol.ExecStdout, protocol.ExecOutput{}), protocol.Errorf(protocol.CodeWorkerCrashed, "gone"))
	}
	w := ask(t, New(f, Options{}), http.MethodPost, execPath, `{"command":["a"]}`, "Accept: text/event-stream")
	if want := "event: STDOUT\ndata: {\"text\":\"\"}\n\n: error worker_crashed: gone\n\n"; w.Body.String() != want {
		t.Errorf("got %q", w.Body)
	}
}

func TestClientThatLeavesStopsItsCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		ended := make(chan error, 1)
		f.onExec = func(ctx context.Context, _ string, _ protocol.ExecRequest, _ ExecSink) (protocol.ExecResult, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return protocol.ExecResult{}, ctx.Err()
		}
		l, stop := servePipes(t, New(f, Options{}))
		c := connect(t, l, "POST "+execPath+" HTTP/1.1\r\nAccept: text/event-stream\r\nContent-Length: 15")
		if _, err := io.WriteString(c, `{"command":"a"}`); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		c.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the command ended with %v", err)
		}
		stop()
	})
}

func TestFrameHoldsTheEventAndNoLineBreakOfItsData(t *testing.T) {
	for _, e := range []protocol.Event{
		event(1, `{"text":"a\n\r\u2028b"}`),
		event(1<<62, "{\n  \"text\": \"a\",\r\n\t\"b\": [1,\n2]\r}\n"),
		event(2, "{\"text\":\r\"a\"}"), // a lone \r ends a line of SSE too
		event(3, ""),
		event(4, "{\"a\":\"\u2028\u2029\u0085\"}"),
	} {
		frame, err := appendEvent([]byte("before"), e)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(frame), "\n")
		if len(lines) != 5 || strings.Contains(string(frame), "\r") || !strings.HasPrefix(lines[2], "data: ") {
			t.Fatalf("frame %q", frame)
		}
		var got protocol.Event
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines[2], "data: ")), &got); err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if len(e.Data) == 0 {
			e.Data = json.RawMessage("{}")
		}
		if err := json.Compact(&compact, e.Data); err != nil {
			t.Fatal(err)
		}
		e.Data = compact.Bytes()
		if diff := cmp.Diff(e, got); diff != "" {
			t.Error(diff)
		}
	}
}
