package client

import (
	"context"
	"net/http"

	"carrel/protocol"
)

// Sessions lists what a user's agents remember, the last used first.
func (c *Client) Sessions(ctx context.Context, userID string) (protocol.SessionList, error) {
	var list protocol.SessionList
	err := c.call(ctx, get(userPath(userID, "/sessions")), &list)
	return list, err
}

// Session shows a session's transcript.
func (c *Client) Session(ctx context.Context, userID, sessionID string) (protocol.Transcript, error) {
	var transcript protocol.Transcript
	err := c.call(ctx, get(sessionPath(userID, sessionID)), &transcript)
	return transcript, err
}

// DeleteSession deletes a session for good.
func (c *Client) DeleteSession(ctx context.Context, userID, sessionID string) error {
	return c.call(ctx, call{method: http.MethodDelete, path: sessionPath(userID, sessionID), repeat: whenUndone}, nil)
}

// ForkSession begins a session that remembers what another does. It has the id newID;
// "": the daemon makes one.
func (c *Client) ForkSession(ctx context.Context, userID, sessionID, newID string) (protocol.SessionInfo, error) {
	var info protocol.SessionInfo
	err := c.call(ctx, call{
		method: http.MethodPost, path: sessionPath(userID, sessionID) + "/fork",
		body: protocol.ForkRequest{SessionID: newID}, repeat: whenUndone,
	}, &info)
	return info, err
}

func sessionPath(userID, sessionID string) string {
	return userPath(userID, "/sessions/"+escape(sessionID))
}
