package jsonrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// tape is a peer whose whole output is known beforehand. It is played once start
// is closed, which is when the connection has sent its first line.
type tape struct {
	in    *bytes.Reader
	first sync.Once
	start chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *tape) Read(b []byte) (int, error) {
	<-p.start
	return p.in.Read(b)
}

func (p *tape) Write(b []byte) (int, error) {
	p.first.Do(func() { close(p.start) })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (*tape) Close() error { return nil }

// FuzzConnDecode plays any bytes to a connection. As a host it has a Call under
// way and takes events; as a worker it serves requests. Whatever comes, Run ends
// with one of the documented errors, the Call returns, and all that was written
// is JSON-RPC, with no more answers than there were lines.
func FuzzConnDecode(f *testing.F) {
	for _, tt := range hostile {
		if len(tt.input) > 4096 {
			continue // the same is covered by the table; long seeds make a slow start
		}
		f.Add(false, []byte(tt.input+pingLine))
		f.Add(true, []byte(tt.input+`{"jsonrpc":"2.0","id":1,"result":{}}`+"\n"))
	}
	f.Fuzz(func(t *testing.T, isHost bool, stream []byte) {
		peer := &tape{in: bytes.NewReader(stream), start: make(chan struct{})}
		c := jsonrpc.NewConn(peer, handler{
			notify: func(_ context.Context, _ string, params json.RawMessage) error {
				if params != nil && !json.Valid(params) {
					t.Errorf("params %q are no JSON", params)
				}
				return nil
			},
			request: func(_ context.Context, method string, params json.RawMessage) (any, error) {
				if method == "nope" {
					return nil, jsonrpc.ErrMethodNotFound
				}
				return params, nil
			},
		}, jsonrpc.Options{MaxLineBytes: 4096, MaxRequests: 4, Queue: 4})
		var call sync.WaitGroup
		if isHost {
			call.Go(func() { _ = c.Call(t.Context(), "execute", nil, new(protocol.Result)) })
		} else {
			peer.first.Do(func() { close(peer.start) })
		}
		err := c.Run(t.Context())
		if err != nil && !errors.Is(err, jsonrpc.ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Run: %v", err)
		}
		call.Wait()
		answers := 0
		for line := range strings.Lines(peer.out.String()) {
			var m struct {
				Version string `json:"jsonrpc"`
				Method  string
			}
			if err := json.Unmarshal([]byte(line), &m); err != nil || m.Version != "2.0" {
				t.Errorf("wrote %q, which is no JSON-RPC (%v)", line, err)
			}
			if m.Method == "" {
				answers++
			}
		}
		if lines := bytes.Count(stream, []byte{'\n'}) + 1; answers > lines {
			t.Errorf("%d answers to %d lines", answers, lines)
		}
	})
}
