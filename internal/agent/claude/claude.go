// Package claude is the agent with a model: Anthropic's official Go SDK in a
// loop of answers and tool calls. It holds no key and knows no address but the
// one it is given; in a worker that is the broker's line.
//
//	message ─▶ ask ─▶ answer, streamed as events ─▶ tool calls? ─ no ─▶ result
//	            ▲                                      │ yes
//	            └── transcript ◀── results, in order ◀─┘ side by side
//
// What the model says is another party's bytes: every size of it is bounded, and
// a call that makes no sense is answered with a sentence the model can read.
package claude

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"carrel/internal/agent"
	"carrel/internal/agent/session"
	"carrel/internal/tool"
	"carrel/protocol"
)

// Name is what a run's config calls this agent.
const Name = "claude"

// What a run has that asks for nothing else.
const (
	DefaultModel     = "claude-sonnet-4-5"
	DefaultMaxTokens = 16 << 10 // of one answer; a quarter of what the model can
	DefaultMaxTurns  = 50       // answers of the model
	// DefaultWindow is the context window of every current model, in tokens;
	// some have a larger one on request.
	DefaultWindow = 200_000
)

// Tools are what the model can use in one run. Call is safe for concurrent use.
// It returns when ctx ends, and a failure as a result the model can read; output
// is told what a tool prints while it runs. A tool.Set is one.
type Tools interface {
	Definitions() []tool.Definition
	Call(ctx context.Context, c tool.Call, output func(s tool.Stream, text string) error) tool.Result
	// Dir is the shell's working directory, which the session's next run begins in.
	Dir() string
	// Close ends what the calls have started. No call is under way then.
	Close(ctx context.Context) error
}

// Gate stands before and after every call of a tool. Its methods are safe for
// concurrent use. A hook.Gate is one.
type Gate interface {
	// Before gives the call as it may be done, or the reason why it may not, and a
	// note for the model to read beside the result. After an error, which is the
	// gate's own, the call is not done either.
	Before(ctx context.Context, c tool.Call) (allowed tool.Call, denial, note string, err error)
	// After sees what a call gave, and gives what the model is to see of it.
	After(ctx context.Context, c tool.Call, r tool.Result) tool.Result
	// Prompt gives the message as the model is to see it, or the reason why it may
	// not see it.
	Prompt(ctx context.Context, text string) (prompt, denial string, err error)
	// Stop tells that the model has had its last word. Its error changes nothing.
	Stop(ctx context.Context) error
}

// Options of an [Agent]. All but Gate, Window and Log are needed.
type Options struct {
	// BaseURL is where the Messages API is, reached through Transport alone.
	BaseURL   string
	Transport http.RoundTripper
	// Home has the sessions and attachments, Workspace the user's files.
	Home, Workspace *os.Root
	// Tools makes the tools of a run; dir is where the session's shell was last,
	// or "". The agent closes them.
	Tools func(r *agent.Run, dir string) Tools
	// Gate makes a run's gate. Nil lets every call through.
	Gate func(r *agent.Run, t Tools) (Gate, error)
	// Window is the model's context window in tokens; 0 means [DefaultWindow].
	Window int64
	Log    *slog.Logger
}

// Agent is the agent with a model. It is safe for concurrent use.
type Agent struct {
	options  Options
	client   anthropic.Client
	sessions *session.Store
	// wait is what a retry waits with; tests wait less.
	wait func(ctx context.Context, d time.Duration) error
}

var _ agent.Agent = (*Agent)(nil)

// New makes the agent of a home. The SDK reads nothing of the environment and
// retries nothing: what was shown of an answer cannot be taken back, and only
// this package knows whether anything was.
func New(o Options) *Agent {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{
		options:  o,
		sessions: session.NewStore(o.Home),
		wait:     wait,
		client: anthropic.NewClient(
			option.WithoutEnvironmentDefaults(),
			option.WithoutOpenTelemetry(),
			option.WithBaseURL(o.BaseURL),
			option.WithHTTPClient(&http.Client{Transport: o.Transport}),
			option.WithMaxRetries(0),
		),
	}
}

// Run implements [agent.Agent]. Runs of one session take turns.
func (a *Agent) Run(ctx context.Context, r *agent.Run) (*protocol.Result, error) {
	start := time.Now()
	s, err := a.sessions.Open(ctx, r.SessionID)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	tools := a.options.Tools(r, s.Dir())
	going := &run{
		Run: r, agent: a, session: s, tools: tools, definitions: tools.Definitions(),
		shown:   shown{emit: r.Emit, left: maxShownBytes},
		content: tool.NewOutput(maxContentBytes),
	}
	stop, err := going.work(ctx)
	// A run has ended when all it started has, so this is waited for, whatever ctx says.
	if closeErr := tools.Close(context.WithoutCancel(ctx)); err == nil {
		err = closeErr
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return going.result(stop, time.Since(start)), nil
}

// work is the run between the making of its tools and their end.
func (r *run) work(ctx context.Context) (stop string, err error) {
	makeGate := r.agent.options.Gate
	if makeGate == nil {
		return r.loop(ctx)
	}
	if r.gate, err = makeGate(r.Run, r.tools); err != nil {
		return "", err
	}
	prompt, denial, err := r.gate.Prompt(ctx, r.Message)
	if err != nil {
		return "", err
	}
	if denial != "" {
		return "", protocol.Errorf(protocol.CodeForbidden, "the message: %s", denial)
	}
	changed := *r.Run
	changed.Message = prompt
	r.Run = &changed
	if stop, err = r.loop(ctx); err != nil {
		return "", err
	}
	if err := r.gate.Stop(ctx); err != nil {
		r.agent.options.Log.WarnContext(ctx, "a hook at a run's stop failed", "run_id", r.ID, "error", err)
	}
	return stop, nil
}

// run is one that is going.
type run struct {
	*agent.Run

	agent       *Agent
	session     *session.Session
	tools       Tools
	definitions []tool.Definition
	gate        Gate // nil lets everything through
	attachments attachments
	shown       shown
	// pending is what was said in this run and is not in the transcript yet.
	pending []session.Message

	usage   protocol.Usage
	content *tool.Output // the last answer's text
	paused  bool         // that answer goes on in the next
	calls   record
}

func (r *run) model() string {
	if r.Config.Model != "" {
		return r.Config.Model
	}
	return DefaultModel
}

func (r *run) maxTokens() int64 {
	if r.Config.MaxTokens > 0 {
		return int64(r.Config.MaxTokens)
	}
	return DefaultMaxTokens
}

func (r *run) maxTurns() int {
	if r.Config.MaxTurns > 0 {
		return r.Config.MaxTurns
	}
	return DefaultMaxTurns
}
