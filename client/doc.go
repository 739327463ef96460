// Package client talks to carrel's HTTP API: every route of it, typed.
//
// A run is started by [Client.Execute] and followed by [Client.Events], or both at
// once by [Client.ExecuteStream]; who wants the result alone uses [Client.ExecuteWait].
// A run goes on whatever becomes of who started it: a context that ends gives up the
// waiting, and [Client.Cancel] ends the run.
//
// # Events
//
// An event iterator gives the events of one run in order, each exactly once, and ends
// after the last. A connection that is lost is made again where it broke off. What
// cannot be mended so, a gap, a double or an event of another run, is [ErrBrokenStream],
// never an event. What an event tells is a Go type by its own type, of
// [protocol.Event.Decode]:
//
//	switch d := data.(type) {
//	case protocol.TextDelta:
//	case protocol.ApprovalRequested:
//
// # Errors
//
// What the daemon answers, and what a run ended with, is an [*Error], which has the
// answer's code, status and the time to wait:
//
//	errors.Is(err, protocol.CodeNotFound)
//	e, ok := errors.AsType[*client.Error](err)
//
// Other errors are those of the connection and the context.
//
// # Repeating
//
// A request is sent again, up to [Options].Tries times, where that can help and cannot
// do harm: what only reads, or does the same when done twice, after a lost connection
// and after 408, 425, 429, 500, 502, 503 and 504; what does more (exec, approvals,
// forks), where the daemon has certainly not begun: after 429, and where no connection
// came about. Uploads are never repeated. Between tries the client waits for what
// Retry-After tells, or for a random time below a bound that doubles.
//
// Execute does no harm when repeated, since each call has an idempotency key: with the
// same one, the daemon answers with the run that it has begun.
//
// A [Client] starts no goroutine that outlives a call, and is safe for concurrent use.
package client
