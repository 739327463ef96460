package client

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"carrel/protocol"
)

// adversary is a server of one run that does its worst: connection by connection as
// its acts tell, and at last as it should.
type adversary struct {
	truth []protocol.Event
	acts  []act
	lied  bool // a frame was sent whole that is not the next
}

// act is what happens to one request for events.
type act struct {
	Kind       string // of kinds
	Lie        string // of lies, in the frame At
	At         int
	Cut        int  // so many bytes of the answer arrive; beyond its length: all
	Clean      bool // the cut looks like the answer's own end
	Piece      int  // bytes that arrive at a time; 0: as they come
	End        string
	Comments   bool
	RetryAfter int // seconds
}

// kinds: "serve" sends events; "hold back" is a proxy that buffers, from which nothing
// comes until the client gives up.
var (
	kinds = []string{"serve", "serve", "serve", "serve", "refuse", "unavailable", "too many", "proxy error", "hold back"}
	lies  = []string{"double", "gap", "another run", "from the beginning", "other id", "other type", "torn", "huge", "number 0"}
)

func drawAct(canLie bool) *rapid.Generator[act] {
	return rapid.Custom(func(t *rapid.T) act {
		a := act{
			Kind:       rapid.SampledFrom(kinds).Draw(t, "kind"),
			At:         rapid.IntRange(0, 10).Draw(t, "at"),
			Cut:        rapid.OneOf(rapid.IntRange(0, 1500), rapid.Just(1<<30)).Draw(t, "cut"),
			Clean:      rapid.Bool().Draw(t, "clean"),
			Piece:      rapid.IntRange(0, 40).Draw(t, "piece"),
			End:        rapid.SampledFrom([]string{"\n", "\r\n", "\r"}).Draw(t, "end"),
			Comments:   rapid.Bool().Draw(t, "comments"),
			RetryAfter: rapid.IntRange(0, 5).Draw(t, "retry"),
		}
		if canLie && rapid.Bool().Draw(t, "lies") {
			a.Lie = rapid.SampledFrom(lies).Draw(t, "lie")
		}
		return a
	})
}

func truth(n int) []protocol.Event {
	events := make([]protocol.Event, n)
	for i := range events {
		seq := int64(i + 1)
		events[i] = protocol.Event{RunID: "r", Seq: seq, Type: delta, Data: json.RawMessage(fmt.Sprintf(`{"text":"event %d"}`, seq))}
	}
	events[n-1].Type = finished
	return events
}

// RoundTrip implements http.RoundTripper.
func (a *adversary) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/events") {
		return response(r, 200, "application/json", fmt.Sprintf(`{"run_id":"r","status":"finished","last_seq":%d}`, len(a.truth))), nil
	}
	now := act{Kind: "serve", Cut: 1 << 30, End: "\n"}
	if len(a.acts) > 0 {
		now, a.acts = a.acts[0], a.acts[1:]
	}
	switch now.Kind {
	case "refuse":
		return nil, refused
	case "unavailable", "too many", "proxy error":
		status := map[string]int{"unavailable": 503, "too many": 429, "proxy error": 502}[now.Kind]
		resp := response(r, status, "text/html", "<html>")
		resp.Header.Set("Retry-After", strconv.Itoa(now.RetryAfter))
		return resp, nil
	case "hold back":
		resp := response(r, 200, eventStream, "")
		resp.Body = io.NopCloser(heldBack{r})
		return resp, nil
	}
	after, _ := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	resp := response(r, 200, eventStream, "")
	resp.Body = io.NopCloser(now.arrive(a.answer(now, after)))
	return resp, nil
}

func response(r *http.Request, status int, mediaType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: strconv.Itoa(status), Request: r, Header: http.Header{"Content-Type": {mediaType}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

type heldBack struct{ r *http.Request }

func (h heldBack) Read([]byte) (int, error) {
	<-h.r.Context().Done()
	return 0, h.r.Context().Err()
}

// answer is the events after one of them, with the act's lie among them.
func (a *adversary) answer(now act, after int64) string {
	var out strings.Builder
	rest := a.truth[min(int(after), len(a.truth)):]
	if now.Lie == "from the beginning" && after > 0 {
		rest = a.truth
		a.lied = true
	}
	for i, e := range rest {
		if now.Comments {
			out.WriteString(": keep-alive" + now.End + now.End)
		}
		if i == now.At && now.Lie != "" && now.Lie != "from the beginning" {
			written := out.Len()
			out.WriteString(now.lie(e))
			// A cut right before it, or within, leaves it untold.
			a.lied = a.lied || out.Len() <= now.Cut || now.Lie == "huge" && now.Cut > written
			if now.Lie == "gap" {
				continue
			}
		}
		out.WriteString(now.frame(strconv.FormatInt(e.Seq, 10), string(e.Type), e))
	}
	return out.String()
}

func (now act) frame(id, kind string, e protocol.Event) string {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // of strings and numbers
	}
	return "id: " + id + now.End + "event: " + kind + now.End + "data: " + string(text) + now.End + now.End
}

// lie is what is sent before e, or in its place.
func (now act) lie(e protocol.Event) string {
	id, kind := strconv.FormatInt(e.Seq, 10), string(e.Type)
	switch now.Lie {
	case "double":
		return now.frame(id, kind, e) // e follows, for the second time
	case "gap":
		return "" // and e does not follow
	case "another run":
		e.RunID = "s"
	case "other id":
		id += "0"
	case "other type":
		kind = "USAGE"
	case "torn":
		return "id: " + id + now.End + "data: {\"run_id\":\"r\"" + now.End + now.End
	case "huge":
		return "data: " + strings.Repeat("x", maxFrameBytes) + now.End + now.End
	case "number 0":
		e.Seq, id = 0, "0"
	}
	return now.frame(id, kind, e)
}

// arrive is the answer as the client gets it.
func (now act) arrive(text string) io.Reader {
	end := io.EOF
	if now.Cut < len(text) {
		text = text[:now.Cut]
		if !now.Clean {
			end = io.ErrUnexpectedEOF
		}
	}
	if now.Lie == "huge" {
		now.Piece = 0 // it would take its time
	}
	return io.MultiReader(pieces{strings.NewReader(text), cmp.Or(now.Piece, 1<<20)}, iotest.ErrReader(end))
}

type pieces struct {
	r    io.Reader
	most int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.most)]) }

// follow walks over the run and holds what it is given against the truth.
func (a *adversary) follow(t *testing.T, after int64, truth []protocol.Event) error {
	c, err := New("http://carrel.test", Options{HTTPClient: &http.Client{Transport: a}})
	if err != nil {
		return err
	}
	last := after
	for e, err := range c.Events(t.Context(), "r", after) {
		switch {
		case errors.Is(err, ErrBrokenStream) && a.lied:
			return nil
		case err != nil:
			return fmt.Errorf("after event %d: %w", last, err)
		case e.Seq != last+1:
			return fmt.Errorf("event %d was given after event %d", e.Seq, last)
		}
		if last == int64(len(truth)) {
			return fmt.Errorf("event %d was given, and there is none", e.Seq)
		}
		if want := truth[last]; e.RunID != "r" || e.Type != want.Type || string(e.Data) != string(want.Data) {
			return fmt.Errorf("event %d is %+v, want %+v", e.Seq, e, want)
		}
		last = e.Seq
	}
	if last != int64(len(truth)) {
		return fmt.Errorf("ended without an error after event %d of %d", last, len(truth))
	}
	return nil
}

// Whatever a server does, no event is shown out of turn, none twice and none that is
// not the run's; and a server that does not lie is followed to the run's end.
func TestWhateverTheServerDoesNoGapAndNoDoubleIsShown(t *testing.T) {
	for _, canLie := range []bool{false, true} {
		t.Run(fmt.Sprintf("lies %v", canLie), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				events := rapid.IntRange(1, 12).Draw(rt, "events")
				a := &adversary{
					truth: truth(events),
					acts:  rapid.SliceOfN(drawAct(canLie), 0, maxTries-1).Draw(rt, "acts"),
				}
				after := int64(rapid.IntRange(0, events-1).Draw(rt, "after"))
				var fault error
				synctest.Test(t, func(t *testing.T) { fault = a.follow(t, after, a.truth) })
				if fault != nil {
					rt.Fatal(fault)
				}
			})
		})
	}
}

// The test above holds nothing if its judge cannot find a fault: here the server's run
// is another than the judge's.
func TestJudgeOfTheAdversaryFindsFaults(t *testing.T) {
	changed := truth(3)
	changed[1].Data = json.RawMessage(`{}`)
	for name, served := range map[string][]protocol.Event{"other content": changed, "shorter": append(truth(1), truth(2)[1:]...), "longer": truth(4)} {
		synctest.Test(t, func(t *testing.T) {
			if err := (&adversary{truth: served}).follow(t, 0, truth(3)); err == nil {
				t.Errorf("%s: no fault was found", name)
			}
		})
	}
}

// A real connection, ended after each of the bytes of an answer in turn.
func TestConnectionMayEndAfterAnyByte(t *testing.T) {
	const events = 4
	body := func(after int) string {
		return frames(int64(after+1), events-1, delta) + frames(events, events, finished)
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	for name, answer := range map[string]func(after int) string{
		"chunked": func(after int) string {
			var out strings.Builder
			for frame := range strings.SplitAfterSeq(body(after), "\n\n") {
				fmt.Fprintf(&out, "%x\r\n%s\r\n", len(frame), frame) // the last is empty, and so the end
			}
			return head + "Transfer-Encoding: chunked\r\n\r\n" + out.String()
		},
		// The end of the connection is the end of the answer: none looks cut off.
		"until it is closed": func(after int) string { return head + "Connection: close\r\n\r\n" + body(after) },
	} {
		t.Run(name, func(t *testing.T) {
			for cut := range len(answer(0)) {
				synctest.Test(t, func(t *testing.T) {
					first := true
					c := pipeClient(t, func(r *http.Request) string {
						if r.URL.Path == "/v1/runs/r" {
							return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" +
								fmt.Sprintf(`{"run_id":"r","status":"finished","last_seq":%d}`, events)
						}
						after, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
						whole := answer(after)
						if first {
							first = false
							return whole[:cut]
						}
						return whole
					})
					got, err := collect(t.Context(), c, 0)
					if diff := gocmp.Diff(sequence(events), got); diff != "" || err != nil {
						t.Errorf("cut after %d bytes: %v %s", cut, err, diff)
					}
				})
			}
		})
	}
}

// pipeClient is a client whose connections serve one request each, and end.
func pipeClient(t *testing.T, answer func(*http.Request) string) *Client {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				if r, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					_, _ = io.WriteString(theirs, answer(r)) // who has enough hangs up
				}
			}()
			return ours, nil
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := New("http://carrel.test", Options{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
