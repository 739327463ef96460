// Package shell is the agent without a model: the message is a shell script.
package shell

import (
	"context"
	"fmt"
	"time"

	"carrel/internal/agent"
	"carrel/internal/denial"
	"carrel/internal/jail"
	"carrel/internal/tool"
	"carrel/protocol"
)

// Name is what a run's config calls this agent.
const Name = "shell"

const (
	// maxScriptBytes is what the kernel takes as one argument
	// (MAX_ARG_STRLEN, 32 pages), less its closing zero.
	maxScriptBytes = 128<<10 - 1
	// maxContentBytes bounds a result's content, maxDeltaBytes what a run streams:
	// a store keeps every event, so one script must not fill it.
	maxContentBytes = 256 << 10
	maxDeltaBytes   = 8 << 20
)

// Agent runs a message with /bin/sh.
type Agent struct{}

var _ agent.Agent = Agent{}

// Run implements [agent.Agent]. The script's output streams as TEXT_DELTA, both
// outputs as they come. A script that fails is still a finished run.
func (Agent) Run(ctx context.Context, r *agent.Run) (*protocol.Result, error) {
	if len(r.Message) > maxScriptBytes {
		return nil, protocol.Errorf(protocol.CodeTooLarge,
			"a script may have %d bytes, this one has %d: put it into a file of the workspace", maxScriptBytes, len(r.Message))
	}
	start := time.Now()
	s := &stream{ctx: ctx, emit: r.Emit, kept: tool.NewOutput(maxContentBytes)}
	exit, err := r.Tools.Run(ctx, tool.Command{
		Argv:   []string{"/bin/sh", "-c", r.Message},
		Env:    r.Env,
		Dir:    jail.WorkspaceDir,
		Output: s.write,
	})
	if err != nil {
		return nil, err
	}
	var denials []protocol.Denial
	if d := s.words.Denial(denial.Ending{Code: exit.Code, Signal: exit.Signal}); d != nil {
		r.Denied(ctx, d)
		denials = append(denials, *d)
	}
	return &protocol.Result{
		RunID:        r.ID,
		SessionID:    r.SessionID,
		Status:       protocol.StatusFinished,
		Content:      s.kept.String(),
		ToolCalls:    []protocol.ToolCall{},
		Duration:     time.Since(start).Seconds(),
		StopReason:   stopReason(exit),
		ExitCode:     &exit.Code,
		Truncated:    s.kept.Truncated(),
		ContentBytes: s.kept.Size(),
		Denials:      denials,
	}, nil
}

func stopReason(e tool.Exit) string {
	if e.Signal != "" {
		return "signal " + e.Signal
	}
	return "exit"
}

// stream passes output on as events and keeps the ends of it for the result.
type stream struct {
	ctx   context.Context // of the run: write is called by the tool, which has no other
	emit  func(context.Context, protocol.EventType, any) error
	kept  *tool.Output
	words denial.Watch
	full  bool
}

func (s *stream) write(from tool.Stream, text string) error {
	s.kept.WriteString(text)
	s.words.Write(from == tool.Stderr, text)
	if s.full {
		return nil
	}
	if s.kept.Size() > maxDeltaBytes {
		s.full = true
		text = fmt.Sprintf("\n[carrel: output past %d MiB is counted but not shown]\n", maxDeltaBytes>>20)
	}
	return s.emit(s.ctx, protocol.EventTextDelta, protocol.TextDelta{Text: text, Stream: string(from)})
}
