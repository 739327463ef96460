package jail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"carrel/internal/fdpass"
)

// Control is the daemon's end of the line to a PID 1 that is being built. It is
// used by one goroutine at a time.
type Control struct {
	conn *fdpass.Conn
}

// NewControl makes a line; give theirs to [Spawner.Spawn] and close it then.
func NewControl() (c *Control, theirs *os.File, err error) {
	conn, theirs, err := fdpass.Pair()
	if err != nil {
		return nil, nil, fmt.Errorf("control line: %w", err)
	}
	return &Control{conn: conn}, theirs, nil
}

// Close ends the line. A PID 1 that waits at its other end then ends as well.
func (c *Control) Close() { _ = c.conn.Close() }

// Build sends the plan and waits until PID 1 has carried it out. program may be
// nil: the plan then names a path. Errors: *[SetupError] if a step failed, else
// what happened to the line or ctx.
func (c *Control) Build(ctx context.Context, p Plan, program *os.File) ([]StepTime, error) {
	if program == nil {
		return c.ask(ctx, p)
	}
	return c.ask(ctx, p, program)
}

// Bind sends the binding and waits until the jail is closed. files are the line to
// the broker, if the binding says so, and then none, or the detached mounts of
// workspace and home.
func (c *Control) Bind(ctx context.Context, b Binding, files ...*os.File) ([]StepTime, error) {
	return c.ask(ctx, b, files...)
}

func (c *Control) ask(ctx context.Context, v any, files ...*os.File) ([]StepTime, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var r report
	err := c.conn.Send(v, files...)
	if err == nil {
		var got []*os.File
		got, err = c.conn.Recv(&r)
		fdpass.CloseAll(got) // none is expected
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return nil, errors.New("the process ended without a report")
	case err != nil:
		return nil, err
	case r.Failed != "":
		return nil, &SetupError{Step: r.Failed, Err: errors.New(r.Error)}
	}
	return r.Steps, nil
}
