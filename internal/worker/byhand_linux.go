package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"carrel/internal/jail"
	"carrel/protocol"
)

// byHand makes a throw-away sandbox and puts a worker into it whose stream is
// this process's stdin and stdout. It ends when the input has ended and every
// request in it has been answered, or when the worker ends.
func byHand(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	stdinTheirs, stdin, err := os.Pipe()
	if err != nil {
		return err
	}
	stdout, stdoutTheirs, err := os.Pipe()
	if err != nil {
		return err
	}
	trial, err := jail.NewTrial(ctx, jail.TrialOptions{
		Worker: program,
		UserID: "by-hand",
		Env:    jail.BaseEnv("by-hand", nil),
		Stdio:  [3]*os.File{stdinTheirs, stdoutTheirs, os.Stderr},
	})
	_, _ = stdinTheirs.Close(), stdoutTheirs.Close()
	if err != nil {
		return err
	}
	c := &conversation{}
	go c.ask(stdin) // blocks in a read of the terminal: it ends with this process
	err = c.answer(stdout)
	return errorsJoinClose(err, trial)
}

func errorsJoinClose(err error, c io.Closer) error {
	if closeErr := c.Close(); err == nil {
		return closeErr
	}
	return err
}

// conversation passes lines on and knows which requests wait for an answer.
type conversation struct {
	mu      sync.Mutex
	waiting int
	to      io.Closer // nil until the input has ended
}

func (c *conversation) ask(to io.WriteCloser) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, protocol.MaxLineBytes)
	for lines.Scan() {
		var m struct{ ID, Method json.RawMessage }
		c.mu.Lock()
		if json.Unmarshal(lines.Bytes(), &m) != nil || m.ID != nil {
			c.waiting++ // a line that is no JSON is answered as well
		}
		c.mu.Unlock()
		if _, err := fmt.Fprintf(to, "%s\n", lines.Bytes()); err != nil {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = to
	c.closeIfDone()
}

func (c *conversation) answer(from io.Reader) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, protocol.MaxLineBytes+1)
	for lines.Scan() {
		if _, err := fmt.Fprintf(os.Stdout, "%s\n", lines.Bytes()); err != nil {
			return err
		}
		var m struct{ Method json.RawMessage }
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.Method == nil {
			c.mu.Lock()
			c.waiting--
			c.closeIfDone()
			c.mu.Unlock()
		}
	}
	return lines.Err()
}

// closeIfDone ends the worker's input; it must not end while a request is under
// way, since the worker would take that as its orchestrator's end.
func (c *conversation) closeIfDone() {
	if c.to != nil && c.waiting <= 0 {
		_ = c.to.Close()
	}
}
