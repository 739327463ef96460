package jsonrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/jsonrpc"
)

const (
	pingLine   = `{"jsonrpc":"2.0","id":"ping","method":"ping"}` + "\n"
	pingAnswer = `"ping" pong`
)

// hostile is what one peer sends. Each entry is followed by a ping, whose answer
// tells whether the connection went on.
var hostile = []struct {
	name  string
	input string
	want  []string // "id code" or "id result" of each answer
	err   error    // of Run
}{
	// What is no JSON ends the connection.
	{"text", "nonsense\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"empty line", "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"not UTF-8", `{"jsonrpc":"2.0","id":1,"method":"ping","x":"` + "\xc3\x28\"}\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"surrogate half in UTF-8", `{"x":"` + "\xed\xa0\x80\"}\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"two values", `{"jsonrpc":"2.0","id":1,"method":"ping"}{}` + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"cut off", `{"jsonrpc":"2.0","id":1` + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"trailing comma", `{"jsonrpc":"2.0","id":1,"method":"ping",}` + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"NUL bytes", "\x00\x00\x00\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"control character", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\x01ng\"}\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"broken params", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":01}}` + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"broken batch", "[1,\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"nested too deep", strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"nested without end", strings.Repeat(`{"a":`, 12000) + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"line too long", strings.Repeat("x", 100<<10+1) + "\n", []string{"null -32700"}, jsonrpc.ErrProtocol},
	{"line without end", strings.Repeat("x", 100<<10+2), []string{"null -32700"}, jsonrpc.ErrProtocol},

	// What is JSON but no message is refused, and the connection goes on.
	{"batch", `[{"jsonrpc":"2.0","id":1,"method":"ping"}]` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"empty batch", "[]\n", []string{"null -32600", pingAnswer}, nil},
	{"number", "5\n", []string{"null -32600", pingAnswer}, nil},
	{"null", "null\n", []string{"null -32600", pingAnswer}, nil},
	{"empty object", "{}\n", []string{"null -32600", pingAnswer}, nil},
	{"no version", `{"id":1,"method":"ping"}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"old version", `{"jsonrpc":"1.0","id":1,"method":"ping"}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"version a number", `{"jsonrpc":2.0,"id":1,"method":"ping"}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"no method", `{"jsonrpc":"2.0","id":1}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"method a number", `{"jsonrpc":"2.0","id":1,"method":1}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"method null", `{"jsonrpc":"2.0","id":1,"method":null}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"method an object", `{"jsonrpc":"2.0","method":{}}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"params a number", `{"jsonrpc":"2.0","id":1,"method":"ping","params":1}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"params a string", `{"jsonrpc":"2.0","method":"note","params":"x"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"id an object", `{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"id an array", `{"jsonrpc":"2.0","id":[1],"method":"ping"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"id a boolean", `{"jsonrpc":"2.0","id":true,"method":"ping"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"id too long", `{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 300) + `","method":"ping"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"id twice", `{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"method twice, once in disguise", `{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"x"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"request with a result", `{"jsonrpc":"2.0","id":1,"method":"ping","result":1}` + "\n", []string{"1 -32600", pingAnswer}, nil},
	{"id in use", `{"jsonrpc":"2.0","id":"w","method":"wait"}` + "\n" + `{"jsonrpc":"2.0","id":"\u0077","method":"wait"}` + "\n", []string{"null -32600", pingAnswer, `"w" canceled`}, nil},
	{"cancel without an id", `{"jsonrpc":"2.0","method":"cancel"}` + "\n", []string{"null -32600", pingAnswer}, nil},
	{"cancel of wrong shape", `{"jsonrpc":"2.0","method":"cancel","params":[1]}` + "\n", []string{"null -32600", pingAnswer}, nil},

	// What looks odd but is allowed.
	{"unknown method", `{"jsonrpc":"2.0","id":1,"method":"nope"}` + "\n", []string{"1 -32601", pingAnswer}, nil},
	{"unknown notification", `{"jsonrpc":"2.0","method":"nope"}` + "\n", []string{pingAnswer}, nil},
	{"unknown members", `{"x":[{"id":7}],"jsonrpc":"2.0","id":1,"method":"ping","méthode":null}` + "\n", []string{"1 pong", pingAnswer}, nil},
	{"members in disguise", `{"jsonrpc":"2.0","i\u0064":1,"\u006dethod":"p\u0069ng"}` + "\n", []string{"1 pong", pingAnswer}, nil},
	{"spaces and CRLF", " { \"jsonrpc\" : \"2.0\" , \"id\" :\t1 , \"method\" : \"ping\" } \r\n", []string{"1 pong", pingAnswer}, nil},
	{"params null", `{"jsonrpc":"2.0","id":1,"method":"ping","params":null}` + "\n", []string{"1 pong", pingAnswer}, nil},
	{"id null", `{"jsonrpc":"2.0","id":null,"method":"ping"}` + "\n", []string{"null pong", pingAnswer}, nil},
	{"id a fraction", `{"jsonrpc":"2.0","id":1.50e+1,"method":"ping"}` + "\n", []string{"1.50e+1 pong", pingAnswer}, nil},
	{"id with escapes", `{"jsonrpc":"2.0","id":"\u00e4\n","method":"ping"}` + "\n", []string{`"\u00e4\n" pong`, pingAnswer}, nil},
	{"id beyond 64 bits", `{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}` + "\n", []string{"123456789012345678901234567890 pong", pingAnswer}, nil},
	{"cancel of an unknown id", `{"jsonrpc":"2.0","method":"cancel","params":{"id":99}}` + "\n", []string{pingAnswer}, nil},
	{"cancel as a request", `{"jsonrpc":"2.0","id":1,"method":"cancel","params":{"id":1}}` + "\n", []string{"1 -32601", pingAnswer}, nil},
	{"deep but allowed", `{"jsonrpc":"2.0","id":1,"method":"ping","x":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + "}\n", []string{"1 pong", pingAnswer}, nil},
	{"longest line", `{"jsonrpc":"2.0","id":1,"method":"ping","x":"` + strings.Repeat("x", 100<<10-47) + "\"}\n", []string{"1 pong", pingAnswer}, nil},

	// Responses nobody asked for end the connection unanswered.
	{"id never issued", `{"jsonrpc":"2.0","id":1,"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"id zero", `{"jsonrpc":"2.0","id":0,"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"id of another type", `{"jsonrpc":"2.0","id":"1","result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"id negative", `{"jsonrpc":"2.0","id":-1,"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"id of an object", `{"jsonrpc":"2.0","id":{},"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"id of great length", `{"jsonrpc":"2.0","id":1` + strings.Repeat("0", 300) + `,"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"response without an id", `{"jsonrpc":"2.0","result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"result for id null", `{"jsonrpc":"2.0","id":null,"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"response of an old version", `{"jsonrpc":"1.0","id":1,"result":1}` + "\n", nil, jsonrpc.ErrProtocol},
	{"both result and error", `{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}` + "\n", nil, jsonrpc.ErrProtocol},
	{"result twice", `{"jsonrpc":"2.0","id":1,"result":1,"result":2}` + "\n", nil, jsonrpc.ErrProtocol},
	{"error a string", `{"jsonrpc":"2.0","id":1,"error":"no"}` + "\n", nil, jsonrpc.ErrProtocol},
	{"error null", `{"jsonrpc":"2.0","id":1,"error":null}` + "\n", nil, jsonrpc.ErrProtocol},
	{"error without a code", `{"jsonrpc":"2.0","id":1,"error":{"message":"no"}}` + "\n", nil, jsonrpc.ErrProtocol},
	{"refusal of a line of ours", `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}` + "\n", nil, jsonrpc.ErrProtocol},
}

// outline shortens an answer line to its id and its code or result.
func outline(t *testing.T, line string) string {
	t.Helper()
	var a struct {
		Version string
		ID      json.RawMessage
		Result  string
		Error   *struct {
			Code    int
			Message string
			Data    struct{ Code string }
		}
	}
	decoder := json.NewDecoder(strings.NewReader(strings.Replace(line, `"jsonrpc"`, `"version"`, 1)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil || a.Version != "2.0" || a.ID == nil {
		t.Fatalf("answer %s is no JSON-RPC (%v)", line, err)
	}
	switch {
	case a.Error == nil:
		return string(a.ID) + " " + a.Result
	case a.Error.Message == "":
		t.Errorf("answer %s has no message", line)
		fallthrough
	case a.Error.Data.Code != "":
		return string(a.ID) + " " + a.Error.Data.Code
	default:
		code, _ := json.Marshal(a.Error.Code)
		return string(a.ID) + " " + string(code)
	}
}

func TestWhateverAPeerSends(t *testing.T) {
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := connectRaw(t.Context(), onRequest(func(ctx context.Context, method string, params json.RawMessage) (any, error) {
					switch {
					case method == "ping" && params == nil:
						return "pong", nil
					case method == "wait":
						<-ctx.Done()
						return "canceled", nil
					default:
						return nil, jsonrpc.ErrMethodNotFound
					}
				}), jsonrpc.Options{MaxLineBytes: 100 << 10})
				go func() {
					r.send(tt.input)
					synctest.Wait()
					r.send(pingLine)
					synctest.Wait()
					_ = r.end.WriteCloser.Close()
				}()
				var got []string
				for _, line := range r.rest() {
					got = append(got, outline(t, line))
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("answers (-want +got):\n%s", diff)
				}
				if err := r.wait(); !errors.Is(err, tt.err) {
					t.Errorf("Run: %v, want %v", err, tt.err)
				}
			})
		})
	}
}

func TestHalfALineAtTheEndIsUnexpected(t *testing.T) {
	for _, input := range []string{`{"jsonrpc":"2.0"`, "x", pingLine + strings.Repeat("x", 70<<10)} {
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{})
		go func() {
			r.send(input)
			_ = r.end.WriteCloser.Close()
		}()
		r.rest()
		err := r.wait()
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, jsonrpc.ErrProtocol) {
			t.Errorf("Run: %v, want ErrUnexpectedEOF and no blame: the peer may have been killed", err)
		}
	}
}

func TestSecondResponseEndsTheConnection(t *testing.T) {
	r := connectRaw(t.Context(), handler{}, jsonrpc.Options{})
	call := make(chan error, 1)
	go func() { call <- r.conn.Call(t.Context(), "m", nil, nil) }()
	if got, want := r.receive(), `{"jsonrpc":"2.0","id":1,"method":"m"}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	r.send(strings.Repeat(`{"jsonrpc":"2.0","id":1,"result":null}`+"\n", 2))
	if err := <-call; err != nil {
		t.Errorf("Call: %v, want its first answer", err)
	}
	if err := r.wait(); !errors.Is(err, jsonrpc.ErrProtocol) {
		t.Errorf("Run: %v, want ErrProtocol", err)
	}
}

func TestViolationFailsPendingCalls(t *testing.T) {
	r := connectRaw(t.Context(), handler{}, jsonrpc.Options{})
	call := make(chan error, 1)
	go func() { call <- r.conn.Call(t.Context(), "m", nil, nil) }()
	r.receive()
	r.send("nonsense\n")
	if err := <-call; !errors.Is(err, jsonrpc.ErrClosed) || !errors.Is(err, jsonrpc.ErrProtocol) {
		t.Errorf("Call: %v, want ErrClosed and ErrProtocol", err)
	}
	r.rest()
	_ = r.wait()
}

func TestResultOfAnotherShapeIsAViolationOfThatCallAlone(t *testing.T) {
	p := connect(t.Context(), handler{}, onRequest(func(context.Context, string, json.RawMessage) (any, error) {
		return "text", nil
	}), jsonrpc.Options{})
	var n int
	if err := p.host.Call(t.Context(), "m", nil, &n); !errors.Is(err, jsonrpc.ErrProtocol) {
		t.Errorf("Call: %v, want ErrProtocol", err)
	}
	var s string
	if err := p.host.Call(t.Context(), "m", nil, &s); err != nil || s != "text" {
		t.Errorf("next Call: %q, %v", s, err)
	}
	p.hangUp(t)
}

func TestEndlessGarbageIsReadNoFurtherThanALine(t *testing.T) {
	var peer endless
	c := jsonrpc.NewConn(&peer, handler{}, jsonrpc.Options{})
	if err := c.Run(t.Context()); !errors.Is(err, jsonrpc.ErrProtocol) {
		t.Errorf("Run: %v, want ErrProtocol", err)
	}
	if limit := 4<<20 + 2*64<<10; peer.read > limit {
		t.Errorf("%d bytes were read, want at most %d", peer.read, limit)
	}
}

// endless sends x for ever and takes everything.
type endless struct {
	read int
	bytes.Buffer
}

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	e.read += len(b)
	return len(b), nil
}

func (*endless) Close() error { return nil }
