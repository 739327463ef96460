package httpapi

import (
	"log/slog"
	"net/http"
	"time"
)

// NewServer returns a server for the handler of [New]. It has no WriteTimeout:
// an SSE answer lasts as long as its run, and Options.SlowReader bounds each
// write instead; likewise each handler bounds the reading of its body.
// Addr is the caller's to set, or its own listener to pass to Serve.
func NewServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}
