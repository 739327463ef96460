// Package httpapi turns HTTP requests into calls of a small [Service] and its
// answers into JSON, problem documents (RFC 9457) and server-sent events (SSE).
//
// It refuses what is malformed before the service sees it, so that the service
// need not look at forms again. All routes stand in one table ([Routes]).
//
// It starts one goroutine for each SSE answer under way (it sends the comment
// that keeps the connection); the handler that started it waits for it.
package httpapi
