package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"strings"

	"carrel"
	"carrel/client"
	"carrel/protocol"
)

// backend is who works on a message: this process or a daemon.
type backend interface {
	Execute(ctx context.Context, req protocol.ExecuteRequest) (protocol.Run, error)
	Run(ctx context.Context, runID string) (protocol.Run, error)
	Events(ctx context.Context, runID string, after int64) iter.Seq2[protocol.Event, error]
	Cancel(ctx context.Context, runID string) error
	Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error
	Exec(ctx context.Context, userID string, req protocol.ExecRequest, sink func(protocol.EventType, protocol.ExecOutput) error) (protocol.ExecResult, error)
	Shutdown(ctx context.Context) error
}

var _ backend = (*carrel.Orchestrator)(nil)

// target says which backend, for the commands that need one.
type target struct {
	URL  string `env:"CARREL_URL" help:"Address of a running daemon; without it this process does the work." placeholder:"URL"`
	User string `default:"${user}" help:"Whose sandbox." placeholder:"ID"`
	// The key itself is no flag: every process of the host could read it.
	KeyFile string `help:"File that holds the API key for --url, in place of CARREL_API_KEY." placeholder:"FILE" type:"path"`
}

// readKey gives what this program signs in with at a daemon: what the file holds, or,
// without one, CARREL_API_KEY; empty if that is not set either.
func readKey(keyFile string) (client.Key, error) {
	if keyFile == "" {
		return client.Key(strings.TrimSpace(os.Getenv("CARREL_API_KEY"))), nil
	}
	file, err := os.Open(keyFile)
	if err != nil {
		return "", fmt.Errorf("--key-file: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("--key-file: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" {
		return "", fmt.Errorf("--key-file: %s is empty", keyFile)
	}
	return client.Key(key), nil
}

// maxKeyFile is far more than a key has.
const maxKeyFile = 4 << 10

func (t target) open(ctx context.Context, c *cli) (backend, error) {
	if t.URL != "" {
		key, err := readKey(t.KeyFile)
		if err != nil {
			return nil, err
		}
		daemon, err := client.New(t.URL, client.Options{Key: key})
		if err != nil {
			return nil, err
		}
		return remote{daemon}, nil
	}
	// One command: no warm workers, and only warnings in the log.
	cfg, err := c.loadConfig(map[string]string{"SANDBOX_WARM_WORKERS": "0"})
	if err != nil {
		return nil, err
	}
	cfg.LogLevel = max(cfg.LogLevel, slog.LevelWarn)
	o, err := carrel.New(ctx, cfg, carrel.WithLogger(newLogger(cfg)), carrel.WithVersion(version))
	if errors.Is(err, &protocol.Error{Code: protocol.CodeConflict}) {
		return nil, fmt.Errorf("%w; if that is a daemon, name it by --url", err)
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// remote is a daemon.
type remote struct{ *client.Client }

func (r remote) Execute(ctx context.Context, req protocol.ExecuteRequest) (protocol.Run, error) {
	return r.Client.Execute(ctx, req, client.ExecuteOptions{})
}

func (r remote) Cancel(ctx context.Context, runID string) error {
	_, err := r.Client.Cancel(ctx, runID)
	return err
}

func (r remote) Exec(ctx context.Context, userID string, req protocol.ExecRequest, sink func(protocol.EventType, protocol.ExecOutput) error) (protocol.ExecResult, error) {
	return r.ExecStream(ctx, userID, req, sink)
}

func (r remote) Shutdown(context.Context) error {
	r.Close()
	return nil
}
