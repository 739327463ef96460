// Package jsonrpc is one bidirectional, ordered, bounded JSON-RPC 2.0 peer over
// NDJSON: the same [Conn] serves the orchestrator and the worker. Neither trusts
// the other: whatever a peer sends or fails to read, a Conn does not panic, does
// not block for ever and does not grow without bound.
//
//	       rwc.Read                                    rwc.Write
//	          │                                            ▲
//	       reader ── cancel: ends the request's context    │
//	          │   └─ refusal: straight to the outbox ───► writer
//	          ▼                                            ▲ outbox (64 KiB)
//	inbox (Queue messages, MaxLineBytes bytes)             │
//	          ▼                                            │
//	      dispatch ─ notification: Handler.Notify, here    │
//	          ├───── response: wakes its Call              │
//	          └───── request: Handler.Request, a goroutine of its own
//
// # Order
//
// Everything but "cancel" passes the inbox in arrival order, and dispatch handles
// one message at a time. So the answer of a Call never overtakes a notification
// sent before it, and a request starts after all earlier notifications. The end
// of the input is in order too: what arrived before it is still handled.
//
// # Full queues
//
// A slow Handler.Notify fills the inbox; the reader then stops reading, the
// peer's writer blocks, and so does the peer's Notify: backpressure end to end,
// nothing is dropped. While the reader waits it sees no cancel either, since
// what stands before the cancel in the stream can neither be kept (memory) nor
// lost (order). This cannot become a deadlock:
//
//   - Dispatch waits for nothing but Handler.Notify. Requests run on their own
//     goroutines, and answers of the connection itself (refusals) never wait for
//     the writer: if the peer reads none of them, the connection ends.
//   - So the inbox is stuck only while Handler.Notify is. A worker gets requests
//     and cancels but no notifications, its inbox is never stuck, and it sees
//     every cancel at once, even while all its own output is blocked.
//   - Handler.Notify must therefore not wait for the peer of the same
//     connection: no Call (its answer would stand behind this notification) and
//     no Notify. Its context ends with the connection, so even that mistake
//     lasts no longer than Run's context.
package jsonrpc
