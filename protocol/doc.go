// Package protocol holds what crosses a boundary: the JSON-RPC methods between
// the orchestrator and a worker, the events of a run, the shapes of the HTTP
// API, and the error codes. It imports nothing but the standard library, so
// that both halves of carrel and every client can share it.
package protocol

// Version of the JSON-RPC protocol between orchestrator and worker. Both halves
// are built and installed together; a mismatch ends the start of the worker.
const Version = 1

// MaxLineBytes is the longest JSON-RPC line either half accepts.
const MaxLineBytes = 4 << 20

// MaxMessageBytes is the longest message of a run. It leaves room in a line for
// JSON's escaping (at worst six bytes for one) to stay below [MaxLineBytes].
const MaxMessageBytes = 512 << 10
