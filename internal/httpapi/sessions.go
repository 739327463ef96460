package httpapi

import (
	"fmt"
	"net/http"

	"carrel/protocol"
)

// listSessions serves GET /v1/users/{user_id}/sessions.
func (a *api) listSessions(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	list, err := a.service.ListSessions(r.Context(), user)
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, list)
}

// showSession serves GET /v1/users/{user_id}/sessions/{session_id}.
func (a *api) showSession(w http.ResponseWriter, r *http.Request) error {
	user, session, err := userAndSession(r)
	if err != nil {
		return err
	}
	give, err := a.transcripts.take(r.Context(), user)
	if err != nil {
		return fmt.Errorf("wait to read session: %w", err)
	}
	defer give()
	transcript, err := a.service.ReadSession(r.Context(), user, session)
	if err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, transcript)
}

// deleteSession serves DELETE /v1/users/{user_id}/sessions/{session_id}.
func (a *api) deleteSession(w http.ResponseWriter, r *http.Request) error {
	user, session, err := userAndSession(r)
	if err != nil {
		return err
	}
	if err := a.service.DeleteSession(r.Context(), user, session); err != nil {
		return fmt.Errorf("delete session: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// forkSession serves POST /v1/users/{user_id}/sessions/{session_id}/fork.
func (a *api) forkSession(w http.ResponseWriter, r *http.Request) error {
	user, session, err := userAndSession(r)
	if err != nil {
		return err
	}
	var req protocol.ForkRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	if req.SessionID != "" {
		if err := protocol.CheckSessionID(req.SessionID); err != nil {
			return err
		}
	}
	info, err := a.service.ForkSession(r.Context(), user, session, req.SessionID)
	if err != nil {
		return fmt.Errorf("fork session: %w", err)
	}
	return a.writeJSON(w, http.StatusCreated, info)
}

func userAndSession(r *http.Request) (user, session string, err error) {
	if user, err = userID(r); err != nil {
		return "", "", err
	}
	session = r.PathValue("session_id")
	return user, session, protocol.CheckSessionID(session)
}
