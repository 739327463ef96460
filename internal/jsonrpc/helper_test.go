package jsonrpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"carrel/internal/jsonrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler is a Handler of two functions; a missing one answers as an honest peer
// that knows no methods.
type handler struct {
	notify  func(ctx context.Context, method string, params json.RawMessage) error
	request func(ctx context.Context, method string, params json.RawMessage) (any, error)
}

var _ jsonrpc.Handler = handler{}

func (h handler) Notify(ctx context.Context, method string, params json.RawMessage) error {
	if h.notify == nil {
		return nil
	}
	return h.notify(ctx, method, params)
}

func (h handler) Request(ctx context.Context, method string, params json.RawMessage) (any, error) {
	if h.request == nil {
		return nil, jsonrpc.ErrMethodNotFound
	}
	return h.request(ctx, method, params)
}

// onRequest is a handler of requests alone.
func onRequest(f func(ctx context.Context, method string, params json.RawMessage) (any, error)) handler {
	return handler{request: f}
}

// duplex is one end of a pair of pipes.
type duplex struct {
	io.ReadCloser
	io.WriteCloser
}

func (d duplex) Close() error {
	_ = d.WriteCloser.Close()
	return d.ReadCloser.Close()
}

// osPipes returns the two ends of a connection over kernel pipes, which is what a
// worker's stdin and stdout are.
func osPipes(tb testing.TB) (host, worker duplex) {
	tb.Helper()
	r1, w1, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	r2, w2, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	host, worker = duplex{r1, w2}, duplex{r2, w1}
	tb.Cleanup(func() { _ = host.Close(); _ = worker.Close() })
	return host, worker
}

// memoryPipes are the same without the kernel and without any buffer: a Write
// waits for its Read, which is the hardest case for deadlocks, and synctest sees
// such a wait.
func memoryPipes() (host, worker duplex) {
	r1, w1 := io.Pipe()
	r2, w2 := io.Pipe()
	return duplex{r1, w2}, duplex{r2, w1}
}

// pair is two connected, running connections.
type pair struct {
	host, worker       *jsonrpc.Conn
	hostEnd, workerEnd duplex

	wg                 sync.WaitGroup
	hostErr, workerErr error // valid after wait
}

func connect(ctx context.Context, host, worker jsonrpc.Handler, o jsonrpc.Options) *pair {
	hostEnd, workerEnd := memoryPipes()
	return connectOver(ctx, hostEnd, workerEnd, host, worker, o)
}

func connectOver(ctx context.Context, hostEnd, workerEnd duplex, host, worker jsonrpc.Handler, o jsonrpc.Options) *pair {
	p := &pair{
		host: jsonrpc.NewConn(hostEnd, host, o), worker: jsonrpc.NewConn(workerEnd, worker, o),
		hostEnd: hostEnd, workerEnd: workerEnd,
	}
	p.wg.Go(func() { p.hostErr = p.host.Run(ctx) })
	p.wg.Go(func() { p.workerErr = p.worker.Run(ctx) })
	return p
}

// hangUp ends the pair as a host does that lets go of its worker, and expects
// both ends to find that clean.
func (p *pair) hangUp(t *testing.T) {
	t.Helper()
	_ = p.hostEnd.WriteCloser.Close()
	p.wg.Wait()
	if p.hostErr != nil || p.workerErr != nil {
		t.Errorf("Run: host %v, worker %v; want nil of both", p.hostErr, p.workerErr)
	}
}

// raw is a connection whose peer is the test itself, byte by byte.
type raw struct {
	conn *jsonrpc.Conn
	end  duplex // the peer's
	in   *bufio.Reader

	wg  sync.WaitGroup
	err error // of Run, valid after wait
}

func connectRaw(ctx context.Context, h jsonrpc.Handler, o jsonrpc.Options) *raw {
	own, peer := memoryPipes()
	r := &raw{conn: jsonrpc.NewConn(own, h, o), end: peer, in: bufio.NewReader(peer)}
	r.wg.Go(func() { r.err = r.conn.Run(ctx) })
	return r
}

// send writes text as it is; once the connection has ended, to nobody.
func (r *raw) send(text string) { _, _ = io.WriteString(r.end, text) }

func (r *raw) sendf(format string, args ...any) { r.send(fmt.Sprintf(format, args...)) }

// receive returns the next line without its end, "" at the end.
func (r *raw) receive() string {
	line, err := r.in.ReadString('\n')
	if err != nil {
		return ""
	}
	return line[:len(line)-1]
}

// rest returns what else is sent up to the end.
func (r *raw) rest() []string {
	var lines []string
	for line := r.receive(); line != ""; line = r.receive() {
		lines = append(lines, line)
	}
	return lines
}

// hangUp ends the peer's output, reads the rest, and returns what Run returned.
func (r *raw) hangUp() error {
	_ = r.end.WriteCloser.Close()
	r.rest()
	return r.wait()
}

func (r *raw) wait() error {
	r.wg.Wait()
	return r.err
}
