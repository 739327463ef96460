package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"carrel/internal/agent"
	"carrel/internal/agent/shell"
	"carrel/internal/jail"
	"carrel/internal/jsonrpc"
	"carrel/internal/reap"
	"carrel/internal/tool"
	"carrel/protocol"
)

// asking is an agent that emits, asks for approval and asks a webhook.
type asking struct{}

func (asking) Run(ctx context.Context, r *agent.Run) (*protocol.Result, error) {
	if err := r.Emit(ctx, protocol.EventTextDelta, protocol.TextDelta{Text: r.Message}); err != nil {
		return nil, err
	}
	answer, err := r.Approve(ctx, protocol.ApproveParams{Tool: "bash", Input: json.RawMessage(`{}`)})
	if err != nil {
		return nil, err
	}
	hooked, err := r.Webhook(ctx, protocol.HookParams{RunID: r.ID})
	if err != nil {
		return nil, err
	}
	return &protocol.Result{RunID: r.ID, Content: answer.Decision + hooked.Decision}, nil
}

// script is a host whose whole talk is known beforehand; out is what it was told.
type script struct {
	in *bytes.Reader

	mu  sync.Mutex
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) { return s.in.Read(b) }

func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

func (*script) Close() error { return nil }

// FuzzHostileHost plays any bytes to a worker as its orchestrator. Whatever comes, it
// ends in a documented way and with no run counted as going; it is bound once and to
// its own user alone; all it writes is JSON-RPC, and of each run it begins what it
// tells is numbered from 1 and ends at most once.
func FuzzHostileHost(f *testing.F) {
	initialize := func(id int, user string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"initialize","params":{"protocol_version":%d,"user_id":%q,"permissions":{"deny":["bash"]}}}`+"\n", id, protocol.Version, user)
	}
	for _, seed := range []string{
		"", initialize(1, "ana"), initialize(1, "bob"), initialize(1, "ana") + initialize(2, "ana"),
		`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"run_id":"r","message":"m"}}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"execute","params":{"run_id":"r","message":"m"}}` + "\n" + `{"jsonrpc":"2.0","id":1,"result":{"decision":"allow"}}` + "\n" + `{"jsonrpc":"2.0","id":2,"result":{"decision":"x"}}` + "\n",
		`{"jsonrpc":"2.0","id":"a","method":"execute","params":{"message":"m","config":{"agent":"claude"}}}` + "\n" + `{"jsonrpc":"2.0","method":"cancel","params":{"id":"a"}}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"execute"}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"execute","params":[]}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"exec","params":{"command":["a\u0000"],"env":{"=":""}}}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"exec","params":{"command":"x","cwd":"../.."}}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"ping"}` + "\n" + `{"jsonrpc":"2.0","id":2,"method":"shutdown"}` + "\n" + `{"jsonrpc":"2.0","id":3,"method":"ping"}` + "\n",
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocol_version":1,"approval_s":1e300,"limits":{"max_runs":-1}}}` + "\n",
		strings.Repeat(`{"jsonrpc":"2.0","id":null,"method":"execute","params":{"message":"m"}}`+"\n", 6),
	} {
		f.Add([]byte(seed))
	}
	hosts := tool.NewHosts(reap.New(), jail.Limits{}, nil)
	f.Fuzz(func(t *testing.T, talk []byte) {
		if len(talk) > 64<<10 {
			return
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		w := &Worker{
			stop: stop, entered: &jail.Entered{UserID: "ana"}, tools: hosts,
			agents: map[string]agent.Agent{shell.Name: asking{}}, agent: shell.Name, limits: defaults,
		}
		host := &script{in: bytes.NewReader(talk)}
		w.conn = jsonrpc.NewConn(host, w, jsonrpc.Options{})
		err := w.conn.Run(ctx)
		if err != nil && !errors.Is(err, jsonrpc.ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if w.active != 0 {
			t.Errorf("%d runs are counted as going", w.active)
		}
		checkTold(t, talk, host.out.String())
	})
}

// checkTold holds what a worker wrote against what it may.
func checkTold(t *testing.T, talk []byte, told string) {
	t.Helper()
	answers, bound, begun, ended := 0, 0, 0, 0
	for line := range strings.Lines(told) {
		var m struct {
			Version string `json:"jsonrpc"`
			Method  string
			Params  protocol.EventParams
			Result  struct {
				ProtocolVersion int `json:"protocol_version"`
			}
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil || m.Version != "2.0" {
			t.Errorf("wrote %q (%v)", line, err)
		}
		switch m.Method {
		case "":
			answers++
		case protocol.MethodEvent:
			if (m.Params.Type == protocol.EventRunStarted) != (m.Params.Seq == 1) || m.Params.Seq < 1 {
				t.Errorf("event %d is a %s", m.Params.Seq, m.Params.Type)
			}
			if m.Params.Seq == 1 {
				begun++
			}
			if m.Params.Type.Ends() {
				ended++
			}
		}
		if m.Result.ProtocolVersion != 0 {
			bound++
		}
	}
	if lines := bytes.Count(talk, []byte{'\n'}) + 1; answers > lines {
		t.Errorf("%d answers to %d lines", answers, lines)
	}
	if ended > begun {
		t.Errorf("%d runs ended of %d that began", ended, begun)
	}
	if bound > 1 || bound == 1 && !bytes.Contains(talk, []byte("ana")) && !bytes.Contains(talk, []byte(`\u`)) {
		t.Errorf("bound %d times by %q", bound, talk)
	}
}
