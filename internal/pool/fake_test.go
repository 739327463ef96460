package pool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"carrel/internal/engine"
	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// fakeEngine starts workers that are goroutines. What a run does there, its
// message says: see fakeWorker.execute.
type fakeEngine struct {
	ctx context.Context

	mu       sync.Mutex
	live     int
	mostLive int
	byUser   map[string]int // processes bound and not gone
	twice    string         // a user that had two at once
	procs    []*fakeWorker  // all ever started
	specs    []engine.Spec

	// Set by tests.
	startErr    func(n int, spec engine.Spec) error // n counts from 1
	startDelay  time.Duration
	bindErr     func(userID string) error
	reapDelay   time.Duration
	version     int
	memory      int64
	oomKills    int64
	initialize  func(*fakeWorker) error
	deafAtStart bool // answers no initialize
	stubborn    bool // ignores shutdown
}

var _ engine.Engine = (*fakeEngine)(nil)

func (f *fakeEngine) Start(ctx context.Context, spec engine.Spec) (engine.Process, error) {
	f.mu.Lock()
	f.specs = append(f.specs, spec)
	n := len(f.specs)
	startErr, delay := f.startErr, f.startDelay
	f.live++
	f.mostLive = max(f.mostLive, f.live)
	f.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			f.gone("")
			return nil, protocol.Errorf(protocol.CodeWorkerStartFailed, "start worker: clone: %w", ctx.Err())
		}
	}
	if startErr != nil {
		if err := startErr(n, spec); err != nil {
			f.gone("")
			return nil, err
		}
	}
	w := &fakeWorker{engine: f, pid: 1000 + n, over: make(chan struct{}), done: make(chan struct{}), resume: make(chan struct{})}
	hostRead, workerWrite := io.Pipe()
	workerRead, hostWrite := io.Pipe()
	w.host, w.inside = pipes{hostRead, hostWrite}, pipes{workerRead, workerWrite}
	f.mu.Lock()
	f.procs = append(f.procs, w)
	f.mu.Unlock()
	return w, nil
}

func (f *fakeEngine) gone(userID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live--
	if userID != "" {
		f.byUser[userID]--
	}
}

// last is the process started last.
func (f *fakeEngine) last() *fakeWorker {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[len(f.procs)-1]
}

func (f *fakeEngine) count() (live, started int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live, len(f.procs)
}

// tries counts the starts, failed ones included.
func (f *fakeEngine) tries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.specs)
}

func (f *fakeEngine) users() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var bound []string
	for _, p := range f.procs {
		bound = append(bound, p.userID)
	}
	return bound
}

type pipes struct {
	io.ReadCloser
	io.WriteCloser
}

func (p pipes) Close() error {
	_ = p.WriteCloser.Close()
	return p.ReadCloser.Close()
}

// fakeWorker is a process and the worker in it.
type fakeWorker struct {
	engine       *fakeEngine
	pid          int
	host, inside pipes
	over         chan struct{} // closed when it dies
	done         chan struct{} // closed when it is gone
	resume       chan struct{} // closed to let "wait" runs finish

	mu       sync.Mutex
	userID   string
	broker   *os.File // as it was given; closed since
	dying    bool
	killed   bool
	exit     protocol.ExitCause
	conn     *jsonrpc.Conn
	stopped  bool // SIGSTOP: answers nothing
	canceled int
}

var _ engine.Process = (*fakeWorker)(nil)

// Steps are two of the start, and one more once it is bound.
func (w *fakeWorker) Steps() []engine.StepTime {
	steps := []engine.StepTime{{Step: "clone", Took: time.Millisecond}, {Step: "root", Took: time.Millisecond}}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.userID != "" {
		steps = append(steps, engine.StepTime{Step: "bind", Took: time.Millisecond})
	}
	return steps
}

func (w *fakeWorker) PID() int                   { return w.pid }
func (w *fakeWorker) Stream() io.ReadWriteCloser { return w.host }
func (w *fakeWorker) Done() <-chan struct{}      { return w.done }

func (w *fakeWorker) Exit() protocol.ExitCause {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exit
}

func (w *fakeWorker) Usage() engine.Usage {
	w.engine.mu.Lock()
	defer w.engine.mu.Unlock()
	return engine.Usage{MemoryBytes: w.engine.memory, CPU: time.Second}
}

func (w *fakeWorker) OOMKills() int64 {
	w.engine.mu.Lock()
	defer w.engine.mu.Unlock()
	return w.engine.oomKills
}

func (w *fakeWorker) Kill() {
	w.mu.Lock()
	w.killed = true
	w.mu.Unlock()
	w.die(protocol.ExitCause{Signal: "SIGKILL"})
}

// die ends the process as the kernel would.
func (w *fakeWorker) die(exit protocol.ExitCause) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dying {
		return
	}
	w.dying, w.exit = true, exit
	close(w.over)
	_ = w.inside.Close()
	userID, delay := w.userID, w.engine.reapDelay
	gone := func() {
		w.engine.gone(userID)
		close(w.done)
	}
	if delay > 0 {
		time.AfterFunc(delay, gone)
		return
	}
	gone()
}

func (w *fakeWorker) Bind(_ context.Context, b engine.Binding) error {
	if w.engine.bindErr != nil {
		if err := w.engine.bindErr(b.UserID); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dying {
		return errors.New("bind: no such process")
	}
	w.engine.mu.Lock()
	defer w.engine.mu.Unlock()
	w.userID, w.broker = b.UserID, b.Broker
	w.engine.byUser[b.UserID]++
	if w.engine.byUser[b.UserID] > 1 {
		w.engine.twice = b.UserID
	}
	w.conn = jsonrpc.NewConn(w.inside, w, jsonrpc.Options{})
	ctx, cancel := context.WithCancel(w.engine.ctx)
	go func() {
		defer cancel()
		go func() {
			select {
			case <-w.over:
				cancel()
			case <-ctx.Done():
			}
		}()
		_ = w.conn.Run(ctx)
	}()
	return nil
}

func (w *fakeWorker) Notify(context.Context, string, json.RawMessage) error { return nil }

func (w *fakeWorker) Request(ctx context.Context, method string, params json.RawMessage) (any, error) {
	w.mu.Lock()
	stopped := w.stopped
	w.mu.Unlock()
	if stopped {
		<-w.over
		return nil, errors.New("dead")
	}
	switch method {
	case protocol.MethodInitialize:
		if w.engine.deafAtStart {
			<-w.over
		}
		if w.engine.initialize != nil {
			if err := w.engine.initialize(w); err != nil {
				return nil, err
			}
		}
		return protocol.InitializeResult{ProtocolVersion: w.engine.version}, nil
	case protocol.MethodPing:
		return struct{}{}, nil
	case protocol.MethodShutdown:
		if w.engine.stubborn {
			<-w.over
		}
		zero := 0
		w.die(protocol.ExitCause{ExitCode: &zero})
		return struct{}{}, nil
	case protocol.MethodExecute:
		var p protocol.ExecuteParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		return w.execute(ctx, p)
	case protocol.MethodExec:
		var p protocol.ExecParams
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		return w.exec(ctx, p)
	}
	return nil, jsonrpc.ErrMethodNotFound
}

func (w *fakeWorker) exec(ctx context.Context, p protocol.ExecParams) (any, error) {
	if p.Command.Shell == "unasked" {
		p.Stream = true
	}
	if p.Stream {
		out := protocol.ExecOutputParams{ExecID: p.ExecID, Type: protocol.ExecStdout, Text: "hello"}
		if err := w.conn.Notify(ctx, protocol.MethodExecOutput, out); err != nil {
			return nil, err
		}
	}
	return protocol.ExecResult{Stdout: "hello"}, nil
}

// execute does what the message says, word by word:
//
//	ok           an ordinary run           wait        until resume or cancel
//	deaf         until death               slow-cancel takes 6 s to heed a cancel
//	refuse       an error, no event        quiet       a result without RUN_FINISHED
//	raw:LINE     writes LINE               exit:N sig:NAME oom seccomp  dies
//	seq:N type:T data:D  one event so      ask         asks for approval
func (w *fakeWorker) execute(ctx context.Context, p protocol.ExecuteParams) (any, error) {
	seq := int64(0)
	emit := func(t protocol.EventType, data string) {
		seq++
		_ = w.conn.Notify(context.WithoutCancel(ctx), protocol.MethodEvent,
			protocol.EventParams{RunID: p.RunID, Seq: seq, Type: t, Data: json.RawMessage(data)})
	}
	if p.Message == "refuse" {
		return nil, protocol.Errorf(protocol.CodeDiskQuotaExceeded, "no space")
	}
	emit(protocol.EventRunStarted, `{"session_id":"s"}`)
	canceled := func() (any, error) {
		w.mu.Lock()
		w.canceled++
		w.mu.Unlock()
		emit(protocol.EventRunError, `{"code":"canceled"}`)
		return nil, protocol.Errorf(protocol.CodeCanceled, "canceled")
	}
	for word := range strings.FieldsSeq(p.Message) {
		verb, arg, _ := strings.Cut(word, ":")
		switch verb {
		case "wait":
			select {
			case <-ctx.Done():
				return canceled()
			case <-w.resume:
			}
		case "slow-cancel":
			<-ctx.Done()
			time.Sleep(6 * time.Second)
			return canceled()
		case "deaf":
			<-w.over
			return nil, errors.New("dead")
		case "text":
			emit(protocol.EventTextDelta, `{"text":"x"}`)
		case "exit":
			var n int
			_, _ = fmt.Sscan(arg, &n)
			w.die(protocol.ExitCause{ExitCode: &n})
		case "sig":
			w.die(protocol.ExitCause{Signal: arg})
		case "oom":
			w.die(protocol.ExitCause{OOMKill: true})
		case "seccomp":
			w.die(protocol.ExitCause{Seccomp: true})
		case "raw":
			_, _ = io.WriteString(w.inside, arg+"\n")
		case "torn":
			_, _ = io.WriteString(w.inside, `{"jsonrpc":"2.0","method":"ev`)
			w.die(protocol.ExitCause{Signal: "SIGKILL"})
		case "hangup":
			_ = w.inside.Close()
		case "seq":
			_, _ = fmt.Sscan(arg, &seq)
			seq--
			emit(protocol.EventTextDelta, `{"text":"x"}`)
		case "type":
			emit(protocol.EventType(arg), `{}`)
		case "data":
			emit(protocol.EventTextDelta, arg)
		case "other":
			_ = w.conn.Notify(ctx, protocol.MethodEvent, protocol.EventParams{
				RunID: "run_other", Seq: 1, Type: protocol.EventRunStarted, Data: json.RawMessage(`{}`),
			})
		case "denied":
			_ = w.conn.Notify(ctx, protocol.MethodDenied, protocol.DeniedParams{RunID: cmp.Or(arg, p.RunID), Denial: protocol.Denial{Layer: "landlock"}})
		case "decided":
			_ = w.conn.Notify(ctx, protocol.MethodDecided, protocol.DecidedParams{RunID: cmp.Or(arg, p.RunID), Tool: "bash", Decision: "allow"})
		case "decided-long":
			_ = w.conn.Notify(ctx, protocol.MethodDecided, protocol.DecidedParams{
				RunID: p.RunID, Decision: "allow", Input: strings.Repeat("x", protocol.MaxDecidedInputBytes+1),
			})
		case "decided-nothing":
			_ = w.conn.Notify(ctx, protocol.MethodDecided, protocol.DecidedParams{RunID: p.RunID})
		case "denied-long":
			_ = w.conn.Notify(ctx, protocol.MethodDenied, protocol.DeniedParams{
				RunID: p.RunID, Denial: protocol.Denial{Target: strings.Repeat("x", protocol.MaxDenialBytes+1)},
			})
		case "stop":
			w.mu.Lock()
			w.stopped = true
			w.mu.Unlock()
		case "ask":
			var got protocol.ApproveResult
			err := w.conn.Call(ctx, protocol.MethodApprove,
				protocol.ApproveParams{RunID: p.RunID, Tool: "bash", Input: json.RawMessage(`{}`)}, &got)
			if err != nil {
				return nil, err
			}
			emit(protocol.EventTextDelta, fmt.Sprintf(`{"text":%q}`, got.Decision))
		case "hook":
			var got protocol.HookResult
			if err := w.conn.Call(ctx, protocol.MethodHook, protocol.HookParams{RunID: arg}, &got); err != nil {
				got.Decision = string(protocol.CodeOf(err))
			}
			emit(protocol.EventTextDelta, fmt.Sprintf(`{"text":%q}`, got.Decision))
		case "quiet":
			return protocol.Result{RunID: p.RunID}, nil
		case "shape":
			emit(protocol.EventRunFinished, `{}`)
			return []int{1}, nil
		}
	}
	emit(protocol.EventRunFinished, `{}`)
	return protocol.Result{RunID: p.RunID, Content: "done", ToolCalls: []protocol.ToolCall{}}, nil
}
