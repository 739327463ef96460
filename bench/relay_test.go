package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"sync"
	"testing"
)

// relay is the floor of a stream: a bare Go handler between a child's pipe and a
// caller, which frames what comes and flushes when nothing more is there. It stores
// nothing, checks nothing, and its children are not jailed.
type relay struct {
	*httptest.Server

	mu   sync.Mutex
	idle []*child // that no request has
}

type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newRelay(t *testing.T, standin string) *relay {
	t.Helper()
	r := &relay{}
	start := func() (*child, error) {
		c := &child{cmd: exec.CommandContext(t.Context(), standin, "plain")}
		var err error
		if c.in, err = c.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		out, err := c.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		c.out = bufio.NewReaderSize(out, 64<<10)
		return c, c.cmd.Start()
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := r.take()
		if c == nil {
			var err error
			if c, err = start(); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		defer r.put(c)
		if err := c.pass(w, req); err != nil {
			t.Errorf("relay: %v", err)
		}
	}))
	t.Cleanup(func() {
		r.Close()
		for _, c := range r.idle {
			_, _ = c.in.Close(), c.cmd.Wait()
		}
	})
	return r
}

func (r *relay) take() *child {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) == 0 {
		return nil
	}
	c := r.idle[len(r.idle)-1]
	r.idle = r.idle[:len(r.idle)-1]
	return c
}

func (r *relay) put(c *child) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = append(r.idle, c)
}

// pass gives a request's message to the child and its lines to the caller.
func (c *child) pass(w http.ResponseWriter, req *http.Request) error {
	var body struct {
		Message string `json:"message"`
	}
	if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c.in, body.Message); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	for {
		line, err := c.out.ReadSlice('\n')
		if err != nil {
			return err
		}
		over := bytes.Contains(line, []byte("RUN_FINISHED"))
		_, err = fmt.Fprintf(w, "data: %s\n", line)
		if c.out.Buffered() == 0 || over {
			if err == nil {
				err = flush.Flush()
			}
			if over {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}
