package worker

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"carrel/internal/denial"
	"carrel/internal/jail"
	"carrel/internal/tool"
	"carrel/protocol"
)

// exec runs one command without an agent.
func (w *Worker) exec(ctx context.Context, p *protocol.ExecParams) (any, error) {
	if err := checkExec(&p.ExecRequest); err != nil {
		return nil, err
	}
	release, err := w.admit()
	if err != nil {
		return nil, err
	}
	defer release()
	w.mu.Lock()
	limit := int(w.limits.MaxOutputBytes)
	w.mu.Unlock()

	start := time.Now()
	var words denial.Watch
	outputs := map[tool.Stream]*tool.Output{tool.Stdout: tool.NewOutput(limit), tool.Stderr: tool.NewOutput(limit)}
	exit, err := w.tools.Run(ctx, tool.Command{
		Argv:  p.Command.Argv(),
		Env:   w.env(p.Env),
		Dir:   inside(p.Cwd),
		Stdin: strings.NewReader(p.Stdin),
		Output: func(s tool.Stream, text string) error {
			outputs[s].WriteString(text)
			words.Write(s == tool.Stderr, text)
			if !p.Stream {
				return nil
			}
			return w.conn.Notify(ctx, protocol.MethodExecOutput,
				protocol.ExecOutputParams{ExecID: p.ExecID, Type: execEvents[s], Text: text})
		},
	})
	if err != nil {
		return nil, failureOf(ctx, err)
	}
	var denials []protocol.Denial
	if d := words.Denial(denial.Ending{Code: exit.Code, Signal: exit.Signal}); d != nil {
		w.denied(ctx, protocol.DeniedParams{ExecID: p.ExecID, Denial: *d})
		denials = append(denials, *d)
	}
	out, errOut := outputs[tool.Stdout], outputs[tool.Stderr]
	return protocol.ExecResult{
		ExitCode:   exit.Code,
		Signal:     exit.Signal,
		Stdout:     out.String(),
		Stderr:     errOut.String(),
		Truncated:  out.Truncated() || errOut.Truncated(),
		DurationMS: time.Since(start).Milliseconds(),
		Denials:    denials,
	}, nil
}

// denied tells the host of a denial. That it cannot be told shows in what follows. A
// tool host, which may be in a tool's hands, may have made it up.
func (w *Worker) denied(ctx context.Context, p protocol.DeniedParams) {
	if p.TooLong() {
		return
	}
	p.Text = "" // the operator reads the rest
	_ = w.conn.Notify(ctx, protocol.MethodDenied, p)
}

var execEvents = map[tool.Stream]protocol.EventType{
	tool.Stdout: protocol.ExecStdout,
	tool.Stderr: protocol.ExecStderr,
}

// checkExec refuses what no command can be started with.
func checkExec(p *protocol.ExecRequest) error {
	if err := p.Command.Validate(); err != nil {
		return protocol.Errorf(protocol.CodeInvalidRequest, "%w", err)
	}
	for _, a := range append(p.Command.Argv(), p.Cwd) {
		if strings.ContainsRune(a, 0) {
			return protocol.Errorf(protocol.CodeInvalidRequest, "command and cwd must not contain a zero byte")
		}
	}
	for name, value := range p.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return protocol.Errorf(protocol.CodeInvalidRequest, "env: %q is no variable's name, or its value has a zero byte", name)
		}
	}
	return nil
}

// inside makes a working directory absolute; a relative one is of the workspace.
func inside(cwd string) string {
	if path.IsAbs(cwd) {
		return path.Clean(cwd)
	}
	return path.Join(jail.WorkspaceDir, cwd)
}

// env is the environment of a command: the worker's own, which was built from
// nothing, and what is added for this one.
func (w *Worker) env(added map[string]string) []string {
	all := make(map[string]string)
	for _, entry := range w.entered.Env {
		name, value, _ := strings.Cut(entry, "=")
		all[name] = value
	}
	maps.Copy(all, added)
	env := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}
