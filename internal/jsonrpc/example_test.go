package jsonrpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"carrel/internal/jsonrpc"
)

// greeter is the worker's half: it answers one method and tells of its progress.
type greeter struct{ conn *jsonrpc.Conn }

func (*greeter) Notify(context.Context, string, json.RawMessage) error { return nil }

func (g *greeter) Request(ctx context.Context, method string, params json.RawMessage) (any, error) {
	if method != "greet" {
		return nil, jsonrpc.ErrMethodNotFound
	}
	var p struct{ Name string }
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, err
	}
	if err := g.conn.Notify(ctx, "event", map[string]string{"text": "thinking"}); err != nil {
		return nil, err
	}
	return "hello, " + p.Name, nil
}

// listener is the host's half: it takes events.
type listener struct{}

func (listener) Notify(_ context.Context, method string, params json.RawMessage) error {
	fmt.Println(method, string(params))
	return nil
}

func (listener) Request(context.Context, string, json.RawMessage) (any, error) {
	return nil, jsonrpc.ErrMethodNotFound
}

func Example() {
	ctx := context.Background()
	hostEnd, workerEnd := memoryPipes() // in production: the worker's stdin and stdout
	g := &greeter{}
	host := jsonrpc.NewConn(hostEnd, listener{}, jsonrpc.Options{})
	g.conn = jsonrpc.NewConn(workerEnd, g, jsonrpc.Options{})

	var running sync.WaitGroup
	running.Go(func() { _ = host.Run(ctx) })
	running.Go(func() { _ = g.conn.Run(ctx) })

	var greeting string
	err := host.Call(ctx, "greet", map[string]string{"name": "reader"}, &greeting)
	fmt.Println(greeting, err)

	_ = hostEnd.WriteCloser.Close() // end of input: both halves end
	running.Wait()
	fmt.Println(host.Err())
	// Output:
	// event {"text":"thinking"}
	// hello, reader <nil>
	// <nil>
}
