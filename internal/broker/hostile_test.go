package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"carrel/internal/door"
)

// Frames of RFC 9113 §6, as far as they are needed.
const (
	preface                         = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHeaders, frameReset        = 1, 3
	frameSettings, frameGoAway      = 4, 7
	flagEndStream, flagEndOfHeaders = 1, 4
	continuation                    = 9
	mostPayload                     = 16 << 10
)

// rawLine speaks frames, so that it can say what no client would.
type rawLine struct {
	t    *testing.T
	conn net.Conn
}

func dialRaw(t *testing.T, b *Broker) *rawLine {
	t.Helper()
	l, file, err := b.Connect("ann")
	if err != nil {
		t.Fatal(err)
	}
	l.Begin(t.Context(), runID, Budget{})
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r := &rawLine{t: t, conn: conn}
	if _, err := io.WriteString(conn, preface); err != nil {
		t.Fatal(err)
	}
	r.frame(frameSettings, 0, 0, nil)
	return r
}

func (r *rawLine) frame(kind, flags byte, stream uint32, payload []byte) {
	n := len(payload)
	b := append([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}, binary.BigEndian.AppendUint32(nil, stream)...)
	// An error is a line that was ended before all was said; what was answered counts.
	_, _ = r.conn.Write(append(b, payload...))
}

// ask sends a request of these pseudo-headers and headers and returns the status,
// "reset" if the stream was refused, "closed" if the whole line was.
func (r *rawLine) ask(fields ...string) string {
	r.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		if err := encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			r.t.Fatal(err)
		}
	}
	kind, flags := byte(frameHeaders), byte(flagEndStream)
	for block.Len() > mostPayload {
		r.frame(kind, flags, 1, block.Next(mostPayload))
		kind, flags = continuation, 0
	}
	r.frame(kind, flags|flagEndOfHeaders, 1, block.Bytes())

	status := ""
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	var head [9]byte
	for {
		if _, err := io.ReadFull(r.conn, head[:]); err != nil {
			return "closed"
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r.conn, payload); err != nil {
			return "closed"
		}
		switch head[3] {
		case frameHeaders:
			if _, err := decoder.Write(payload); err != nil {
				r.t.Fatal(err)
			}
			return status
		case frameReset:
			return "reset"
		case frameGoAway:
			return "closed"
		}
	}
}

func TestHostileRequestsDoNotGoOut(t *testing.T) {
	r := newRig(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s went out", r.Method, r.RequestURI) })
	post := func(path string) []string {
		return []string{":method", "POST", ":scheme", "http", ":authority", "x", ":path", path}
	}
	tests := map[string][]string{
		"another path":              post("/v1/files"),
		"root":                      post("/"),
		"dots":                      post("/v1/messages/../files"),
		"dots that lead there":      post("/v1/x/../messages"),
		"escaped dots":              post("/v1/%2e%2e/v1/messages"),
		"escaped letter":            post("/v1/message%73"),
		"double slash":              post("//v1/messages"),
		"trailing slash":            post("/v1/messages/"),
		"upper case":                post("/V1/messages"),
		"query":                     post("/v1/messages?x=1"),
		"empty query":               post("/v1/messages?"),
		"query beside the beta":     post("/v1/messages?beta=true&x=1"),
		"other beta":                post("/v1/messages?beta=false"),
		"fragment":                  post("/v1/messages#x"),
		"semicolon":                 post("/v1/messages;x"),
		"backslash":                 post(`/v1\messages`),
		"absolute form":             post("http://evil.example/v1/messages"),
		"authority form":            post("//evil.example/v1/messages"),
		"at sign":                   post("@evil.example/v1/messages"),
		"batches":                   post("/v1/messages/batches"),
		"space and protocol":        post("/v1/messages HTTP/1.1"),
		"new line":                  post("/v1/messages\r\nX-Api-Key: x"),
		"empty":                     post(""),
		"star":                      {":method", "OPTIONS", ":scheme", "http", ":authority", "x", ":path", "*"},
		"another method":            {":method", "GET", ":scheme", "http", ":authority", "x", ":path", "/v1/messages"},
		"method in small letters":   {":method", "post", ":scheme", "http", ":authority", "x", ":path", "/v1/messages"},
		"method with a space":       {":method", "POST /v1/messages", ":scheme", "http", ":authority", "x", ":path", "/"},
		"connect":                   {":method", "CONNECT", ":authority", "evil.example:443"},
		"extended connect":          {":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "x", ":path", "/v1/messages"},
		"upgrade":                   append(post("/v1/messages"), "connection", "upgrade", "upgrade", "websocket"),
		"transfer-encoding":         append(post("/v1/messages"), "transfer-encoding", "chunked"),
		"two paths":                 append(post("/v1/messages"), ":path", "/v1/files"),
		"pseudo-header behind":      {":method", "POST", ":scheme", "http", ":path", "/v1/messages", "accept", "x", ":authority", "x"},
		"new line in a header":      append(post("/v1/messages"), "accept", "a\r\nx-api-key: b"),
		"upper-case header":         append(post("/v1/messages"), "Accept", "x"),
		"headers of many kilobytes": append(post("/v1/messages"), "accept", strings.Repeat("x", 15<<10), "user-agent", strings.Repeat("y", 80<<10)),
		"no run":                    post("/v1/messages"),
	}
	for name, fields := range tests {
		line := dialRaw(t, r.broker)
		if name != "no run" {
			fields = append(fields, strings.ToLower(door.RunHeader), runID)
		}
		if got := line.ask(fields...); got == "200" || got == "" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestWellFormedRawRequestGoesOut(t *testing.T) {
	r := newRig(t, message)
	fields := []string{":method", "POST", ":scheme", "http", ":authority", "x", ":path", "/v1/messages", strings.ToLower(door.RunHeader), runID}
	if got := dialRaw(t, r.broker).ask(fields...); got != "200" {
		t.Errorf("the control has %s", got)
	}
}

func TestRubbishOnTheLineEndsTheLine(t *testing.T) {
	r := newRig(t, message)
	for _, rubbish := range []string{
		"POST /v1/messages HTTP/1.1\r\nHost: x\r\nCarrel-Run: " + runID + "\r\nContent-Length: 0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		preface + strings.Repeat("\xff", 100),
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 100),
	} {
		l, file, err := r.broker.Connect("ann")
		if err != nil {
			t.Fatal(err)
		}
		l.Begin(t.Context(), runID, Budget{})
		if _, err := file.WriteString(rubbish); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(file)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Log(err) // a reset is as good an end
		}
		if strings.Contains(string(answer), "200") {
			t.Errorf("%q is answered %q", rubbish, answer)
		}
		_ = file.Close()
		l.Close()
	}
	if a := r.post(t); a.status != http.StatusOK {
		t.Errorf("another's line: %+v", a)
	}
}

func TestEmptyListAllowsNothing(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("a request went out") },
		func(o *Options) { o.Upstreams[0].Allow = nil })
	wantRefused(t, r.post(t), http.StatusForbidden, "not allowed")
	none := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("a request went out") },
		func(o *Options) { o.Upstreams = nil })
	wantRefused(t, none.post(t), http.StatusForbidden, "not allowed")
}

func TestMeaninglessOptionsAreRefused(t *testing.T) {
	for _, u := range []Upstream{
		{BaseURL: "ftp://x"},
		{BaseURL: "https://"},
		{BaseURL: "https://user:pass@x"},
		{BaseURL: "https://x?y"},
		{BaseURL: "https://x#y"},
		{BaseURL: "x"},
		{BaseURL: "https://x", Allow: []string{"/v1/messages"}},
		{BaseURL: "https://x", Allow: []string{"POST v1"}},
		{BaseURL: "https://x", Allow: []string{"CONNECT /"}},
		{BaseURL: "https://x", Allow: []string{"POST /a%2fb"}},
		{BaseURL: "https://x", Allow: []string{"POST /a", "POST /a"}},
		{BaseURL: "https://x", Allow: []string{"POST https://y/a"}},
	} {
		b, err := New(t.Context(), Options{Upstreams: []Upstream{u}, Key: FixedKey(Secret{}), Ledger: &ledger{}})
		if err == nil {
			b.Close()
			t.Errorf("%+v is taken", u)
		} else if strings.Contains(err.Error(), "pass") && strings.Contains(err.Error(), "user") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}
