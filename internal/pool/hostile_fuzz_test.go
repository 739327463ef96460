package pool

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
	"testing/synctest"
	"time"

	"carrel/internal/engine"
	"carrel/protocol"
)

// scripted is an engine whose workers answer "initialize" and then play a script,
// whatever they are asked; after it they are silent, or hang up.
type scripted struct {
	script []byte
	hangUp bool

	mu   sync.Mutex
	live int
}

func (s *scripted) Start(context.Context, engine.Spec) (engine.Process, error) {
	hostRead, workerWrite := io.Pipe()
	workerRead, hostWrite := io.Pipe()
	s.mu.Lock()
	s.live++
	s.mu.Unlock()
	return &scriptedWorker{
		engine: s, done: make(chan struct{}),
		host: pipes{hostRead, hostWrite}, inside: pipes{workerRead, workerWrite},
	}, nil
}

type scriptedWorker struct {
	engine       *scripted
	host, inside pipes
	done         chan struct{}
	dying        sync.Once
}

func (w *scriptedWorker) PID() int                   { return 1 }
func (w *scriptedWorker) Stream() io.ReadWriteCloser { return w.host }
func (w *scriptedWorker) Done() <-chan struct{}      { return w.done }
func (w *scriptedWorker) Exit() protocol.ExitCause   { return protocol.ExitCause{Signal: "SIGKILL"} }
func (w *scriptedWorker) Usage() engine.Usage        { return engine.Usage{} }
func (w *scriptedWorker) OOMKills() int64            { return 0 }
func (w *scriptedWorker) Steps() []engine.StepTime   { return nil }

func (w *scriptedWorker) Kill() {
	w.dying.Do(func() {
		_ = w.inside.Close()
		w.engine.mu.Lock()
		w.engine.live--
		w.engine.mu.Unlock()
		close(w.done)
	})
}

// Bind starts the worker's talk: the goroutine that plays ends with the script, that
// which reads with the stream.
func (w *scriptedWorker) Bind(context.Context, engine.Binding) error {
	asked := make(chan struct{}, 2)
	go func() {
		first := true
		for buffer := make([]byte, 32<<10); ; {
			n, err := w.inside.Read(buffer)
			if err != nil {
				return
			}
			if first || bytes.Contains(buffer[:n], []byte(`"execute"`)) {
				asked <- struct{}{}
			}
			first = false
		}
	}()
	go func() {
		hello := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"result":{"protocol_version":%d}}`+"\n", protocol.Version)
		for _, text := range []string{hello, string(w.engine.script)} {
			select {
			case <-asked:
			case <-w.done:
				return
			}
			if _, err := io.WriteString(w.inside, text); err != nil {
				return
			}
		}
		if w.engine.hangUp {
			_ = w.inside.Close()
		}
	}()
	return nil
}

const goingRunID = "run_mine"

// hostileScripts are what a worker that was taken over may answer to "execute", which
// is request 2.
var hostileScripts = []string{
	"", "\n", "{}\n", "x\n", "\xff\n", "null\n", "[]\n", `{"jsonrpc":"2.0","method":"ev`,
	started + finished + answered,
	started + answered,
	finished + answered,
	started + strings.Replace(started, `"seq":1`, `"seq":2`, 1),
	started + strings.Replace(finished, `"seq":2`, `"seq":3`, 1),
	strings.Replace(started, goingRunID, "run_another", 1),
	started + finished + strings.Replace(finished, `"seq":2`, `"seq":3`, 1),
	started + strings.Replace(finished, "RUN_FINISHED", "RUN_FINISHED\\nid: 9", 1),
	started + strings.Replace(finished, `"data":{}`, `"data":"{}"`, 1),
	started + strings.Replace(finished, `"seq":2`, `"seq":2,"SEQ":9`, 1) + answered,
	started + `{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"m","data":{"code":"run_timeout"}}}` + "\n",
	started + `{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"m","data":{"code":"made_up"}}}` + "\n",
	answered + answered, strings.Replace(answered, `"id":2`, `"id":"2"`, 1), strings.Replace(answered, `"id":2`, `"id":99`, 1),
	started + `{"jsonrpc":"2.0","id":"q","method":"approve","params":{"run_id":"run_mine","approval_id":"apr_1","tool":"bash","input":{}}}` + "\n" + finished + answered,
	started + `{"jsonrpc":"2.0","id":"q","method":"approve","params":{"run_id":"run_another","tool":"bash"}}` + "\n",
	started + `{"jsonrpc":"2.0","id":"q","method":"hook","params":{"run_id":"run_another","hook":0,"user_id":"eve"}}` + "\n",
	started + `{"jsonrpc":"2.0","method":"denied","params":{"run_id":"run_mine","layer":"landlock","rule":"tcp"}}` + "\n",
	started + `{"jsonrpc":"2.0","method":"decided","params":{"run_id":"run_mine","tool":"bash","decision":"allow"}}` + "\n",
	`{"jsonrpc":"2.0","method":"exec_output","params":{"exec_id":"exec_1","type":"STDOUT","text":"x"}}` + "\n",
	`{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}` + "\n" + `{"jsonrpc":"2.0","id":7,"method":"execute"}` + "\n",
	`{"jsonrpc":"2.0","method":"cancel","params":{"id":2}}` + "\n" + started,
}

const (
	started  = `{"jsonrpc":"2.0","method":"event","params":{"run_id":"run_mine","seq":1,"type":"RUN_STARTED","data":{}}}` + "\n"
	finished = `{"jsonrpc":"2.0","method":"event","params":{"run_id":"run_mine","seq":2,"type":"RUN_FINISHED","data":{}}}` + "\n"
	answered = `{"jsonrpc":"2.0","id":2,"result":{"run_id":"run_mine","content":"done"}}` + "\n"
)

// FuzzHostileWorker has a worker say anything to the host while a run of its user
// goes. Whatever it says: the run ends, the events it lets through are the run's own,
// whole, known, numbered from 1 and closed by one last; nobody is asked on behalf of
// another run or user; an error has a code of the contract; and neither a process nor
// a goroutine is left.
func FuzzHostileWorker(f *testing.F) {
	for _, script := range hostileScripts {
		f.Add([]byte(script), true)
		f.Add([]byte(script), false)
	}
	f.Fuzz(func(t *testing.T, script []byte, hangUp bool) {
		if len(script) > 64<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			e := &scripted{script: script, hangUp: hangUp}
			p := New(e, Options{
				MaxWorkers: 1, PingInterval: time.Second, PingTimeout: 3 * time.Second, Rand: func() float64 { return 0.5 },
				Approve: func(_ context.Context, userID string, q protocol.ApproveParams) (protocol.ApproveResult, error) {
					if userID != "ana" || q.RunID != goingRunID {
						t.Errorf("%s is asked about a tool of %q", userID, q.RunID)
					}
					return protocol.ApproveResult{Decision: protocol.Deny}, nil
				},
				Hook: func(_ context.Context, userID string, q protocol.HookParams) (protocol.HookResult, error) {
					if userID != "ana" || q.RunID != goingRunID {
						t.Errorf("a hook is asked for %s about %q", userID, q.RunID)
					}
					return protocol.HookResult{}, nil
				},
			})
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- p.Run(ctx) }()
			synctest.Wait()
			playHostile(ctx, t, p)
			stop()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
			synctest.Wait()
			if e.live != 0 {
				t.Errorf("%d processes are left", e.live)
			}
		})
	})
}

// playHostile lets one run meet the script.
func playHostile(ctx context.Context, t *testing.T, p *Pool) {
	lease, err := p.Acquire(ctx, "ana", AcquireOptions{})
	if err != nil {
		t.Errorf("Acquire: %v", err)
		return
	}
	var seen []protocol.EventParams
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	_, err = lease.Execute(ctx, protocol.ExecuteParams{RunID: goingRunID, Message: "m"}, func(ev protocol.EventParams) error {
		seen = append(seen, ev)
		return nil
	})
	lease.Release()
	if took := time.Since(began); took > time.Minute+p.o.answerTime()+reaping {
		t.Errorf("the run ended after %s", took)
	}
	if err != nil && !errors.As(err, new(*protocol.Error)) {
		t.Errorf("error without a code: %v", err)
	}
	for i, ev := range seen {
		var object map[string]json.RawMessage
		switch {
		case ev.RunID != goingRunID || ev.Seq != int64(i+1) || !known(ev.Type):
			t.Errorf("event %d is %d %q of %q", i+1, ev.Seq, ev.Type, ev.RunID)
		case (i == 0) != (ev.Type == protocol.EventRunStarted) || ev.Type.Ends() && i != len(seen)-1:
			t.Errorf("event %d of %d is a %s", i+1, len(seen), ev.Type)
		case json.Unmarshal(ev.Data, &object) != nil || object == nil:
			t.Errorf("data of event %d is %q", i+1, ev.Data)
		}
	}
	if err == nil && (len(seen) == 0 || seen[len(seen)-1].Type != protocol.EventRunFinished) {
		t.Errorf("a result after %+v", seen)
	}
	if code := protocol.CodeOf(err); err != nil && !code.Known() {
		t.Errorf("code %q is none of the contract: %v", code, err)
	}
}
