package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"carrel/internal/denial"
	"carrel/internal/jail"
	"carrel/protocol"
)

const (
	// DefaultTimeout is what a command of bash may take that names no time of its own.
	DefaultTimeout = 120 * time.Second
	// DefaultResultBytes bounds the text of a result: about ten thousand tokens.
	DefaultResultBytes = 32 << 10
	// maxCommandBytes bounds a command. The shell reads it byte by byte.
	maxCommandBytes = 128 << 10
)

// SetOptions say for whom a [Set] is.
type SetOptions struct {
	Hosts *Hosts
	Env   []string // the whole environment of the commands
	// Dir is the working directory that an earlier run of the session ended in;
	// "" = /workspace.
	Dir         string
	MaxTimeout  time.Duration // of one command: the run's; 0 = no bound but the context's
	ResultBytes int           // of one result's text; 0 = DefaultResultBytes
}

// Set is the built-in tools of one run. It is safe for concurrent use: commands
// of the shell take turns, files are worked on side by side. Close it: the shell
// and all that it started live until then.
type Set struct {
	o     SetOptions
	turn  turn   // who has it may use shell
	shell *shell // nil = none yet, or it has ended
	heard listener
	files turn // who has it may change a file

	mu  sync.Mutex
	dir string
}

// NewSet makes the tools of a run. No process is started before it is needed.
func NewSet(o SetOptions) *Set {
	if o.Dir == "" {
		o.Dir = jail.WorkspaceDir
	}
	if o.ResultBytes <= 0 {
		o.ResultBytes = DefaultResultBytes
	}
	return &Set{o: o, turn: newTurn(), files: newTurn(), dir: o.Dir, heard: listener{between: NewOutput(o.ResultBytes / 4)}}
}

// Dir is the working directory: that of the shell after its last command. It
// outlives the run, in whatever the agent keeps of a session.
func (s *Set) Dir() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dir
}

// Call carries out a call. What went wrong is a result as well, for the model to
// read. output gets what a command of bash prints, as it comes; nil = nobody
// listens, and an error of it ends the command.
func (s *Set) Call(ctx context.Context, c Call, output func(Stream, string) error) Result {
	switch c.Name {
	case bashName:
		return s.callBash(ctx, c.Input, output)
	case readName, writeName, editName, globName, grepName:
		return s.callFile(ctx, c)
	}
	return failf("there is no tool %.60q; there are %s", c.Name, strings.Join(Names(), ", "))
}

// Close ends the shell and all that it started. An error says that ctx ended
// while a call was still under way; end the calls' contexts first.
func (s *Set) Close(ctx context.Context) error {
	if err := s.turn.take(ctx); err != nil {
		return fmt.Errorf("close tools: %w", err)
	}
	defer s.turn.give()
	s.endShell()
	return nil
}

// turn is a lock that can be waited for no longer than a context lives.
type turn chan struct{}

func newTurn() turn {
	t := make(turn, 1)
	t.give()
	return t
}

func (t turn) take(ctx context.Context) error {
	select {
	case <-t:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) give() { t <- struct{}{} }

func (s *Set) endShell() {
	if s.shell != nil {
		s.shell.end()
		s.shell = nil
	}
}

func (s *Set) callBash(ctx context.Context, input json.RawMessage, output func(Stream, string) error) Result {
	var in bashInput
	if err := decodeInput(input, &in); err != nil {
		return failf("%s", err)
	}
	switch {
	case in.Command == "" && !in.Restart:
		return failf("command: must not be empty")
	case len(in.Command) > maxCommandBytes:
		return failf("command: %d bytes, at most %d are allowed; write a file and run that", len(in.Command), maxCommandBytes)
	case strings.ContainsRune(in.Command, 0):
		return failf("command: must not contain a zero byte")
	}
	if err := s.turn.take(ctx); err != nil {
		return failf("the command was not started: %s", err)
	}
	defer s.turn.give()
	if in.Restart {
		s.endShell()
		if in.Command == "" {
			return Result{Content: "the shell was restarted; it is in " + s.Dir()}
		}
	}
	return s.runCommand(ctx, in.Command, s.timeout(in.Timeout), output)
}

func (s *Set) timeout(seconds float64) time.Duration {
	t := DefaultTimeout
	if seconds > 0 && seconds < (24*time.Hour).Seconds() {
		t = time.Duration(seconds * float64(time.Second))
	}
	if s.o.MaxTimeout > 0 {
		t = min(t, s.o.MaxTimeout)
	}
	return t
}

var errTimeout = errors.New("the command's time is up")

// runCommand has the turn.
func (s *Set) runCommand(ctx context.Context, command string, timeout time.Duration, output func(Stream, string) error) Result {
	out := &stream{kept: NewOutput(s.o.ResultBytes), pass: output}
	s.heard.listen(out)
	defer s.heard.listen(nil)
	if err := s.haveShell(ctx); err != nil {
		return failf("%s", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	r, ok := s.shell.run(ctx, command)
	if ok {
		if r.dir != "" {
			s.mu.Lock()
			s.dir = r.dir
			s.mu.Unlock()
		}
		note := ""
		if r.status != 0 {
			note = fmt.Sprintf("exit status %d", r.status)
		}
		return commandResult(out.kept, r.status != 0, note, out.words.Denial(denial.Ending{Code: r.status}))
	}
	exit, err := s.shell.process.Wait()
	s.shell = nil
	lost := fmt.Sprintf("the next command gets a new shell in %s, without this one's variables and background processes", s.Dir())
	note := fmt.Sprintf("the command ended the shell with exit status %d; %s", exit.Code, lost)
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		note = fmt.Sprintf("stopped after %s, its time limit; %s", timeout, lost)
	case ctx.Err() != nil:
		note = "stopped: " + context.Cause(ctx).Error()
	case err != nil:
		note = err.Error() + "; " + lost
	case exit.Signal != "":
		note = "the shell was ended by " + exit.Signal + "; " + lost
	}
	failed := err != nil || exit.Code != 0 || ctx.Err() != nil
	return commandResult(out.kept, failed, note, out.words.Denial(denial.Ending{Code: exit.Code, Signal: exit.Signal}))
}

// haveShell starts a shell unless one is there.
func (s *Set) haveShell(ctx context.Context) error {
	if s.shell != nil {
		select {
		case <-s.shell.process.Done(): // killed by what an earlier command left behind
			s.shell = nil
		default:
			return nil
		}
	}
	// The shell outlives the call, until Close.
	sh, err := startShell(context.WithoutCancel(ctx), s.o.Hosts, s.o.Env, s.Dir(), s.heard.write)
	if err != nil {
		return err
	}
	s.shell = sh
	return nil
}

// commandResult tells what a command gave: its output, then in brackets what the
// output does not say by itself.
func commandResult(kept *Output, failed bool, note string, denied *protocol.Denial) Result {
	r := Result{Content: kept.String(), IsError: failed, Truncated: kept.Truncated(), Bytes: kept.Size(), Denial: denied}
	var notes []string
	if note != "" {
		notes = append(notes, note)
	}
	if r.Truncated {
		notes = append(notes, fmt.Sprintf("%d bytes of output in all", r.Bytes))
	}
	if denied != nil {
		notes = append(notes, denied.Text)
	}
	if r.Content == "" && len(notes) == 0 {
		notes = []string{"no output"}
	}
	r.Content = withNotes(r.Content, notes)
	return r
}

// withNotes adds lines in brackets to a text.
func withNotes(text string, notes []string) string {
	var b strings.Builder
	b.WriteString(text)
	for _, n := range notes {
		if b.Len() > 0 && !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
		b.WriteString("[" + n + "]\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func failf(format string, args ...any) Result {
	text := strings.ToValidUTF8(fmt.Sprintf(format, args...), "\uFFFD")
	return Result{Content: text, IsError: true, Bytes: int64(len(text))}
}
