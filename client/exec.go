package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"carrel/protocol"
)

// Exec runs one command in the user's sandbox and returns when it has ended.
// ctx's end stops the command.
func (c *Client) Exec(ctx context.Context, userID string, req protocol.ExecRequest) (protocol.ExecResult, error) {
	var result protocol.ExecResult
	err := c.call(ctx, call{method: http.MethodPost, path: execPath(userID), body: req, repeat: whenUndone}, &result)
	return result, err
}

// ExecStream is Exec with the output given to sink as it comes, as ExecStdout or
// ExecStderr; the result holds none. An error of sink's stops the command and is
// returned. A command is not started again: a lost connection is an error.
func (c *Client) ExecStream(ctx context.Context, userID string, req protocol.ExecRequest, sink func(protocol.EventType, protocol.ExecOutput) error) (protocol.ExecResult, error) {
	s, err := c.openStream(ctx, call{
		method: http.MethodPost,
		path:   execPath(userID),
		header: http.Header{"Accept": {eventStream}},
		body:   req,
		repeat: whenUndone,
	})
	if err != nil {
		return protocol.ExecResult{}, err
	}
	defer s.close()
	for {
		f, err := s.next()
		if errors.Is(err, io.EOF) {
			return protocol.ExecResult{}, s.ended("command")
		}
		if err != nil {
			return protocol.ExecResult{}, err
		}
		switch t := protocol.EventType(f.event); t {
		case protocol.ExecStdout, protocol.ExecStderr:
			var out protocol.ExecOutput
			if err := json.Unmarshal(f.data, &out); err != nil {
				return protocol.ExecResult{}, fmt.Errorf("decode %s: %w", t, err)
			}
			if err := sink(t, out); err != nil {
				return protocol.ExecResult{}, err
			}
		case protocol.ExecExit:
			var result protocol.ExecResult
			if err := json.Unmarshal(f.data, &result); err != nil {
				return protocol.ExecResult{}, fmt.Errorf("decode %s: %w", t, err)
			}
			return result, nil
		default: // of a newer daemon
		}
	}
}

func execPath(userID string) string { return userPath(userID, "/exec") }
