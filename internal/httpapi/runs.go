package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"carrel/protocol"
)

// execute serves POST /v1/execute. What can be refused is refused before the
// run starts; after that the run's path is told in every answer, and the run
// goes on whatever becomes of the client.
func (a *api) execute(w http.ResponseWriter, r *http.Request) error {
	chosen, err := chooseForm(r.Header)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	var req protocol.ExecuteRequest
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	if err := checkExecute(req); err != nil {
		return err
	}
	caller := CallerOf(r.Context())
	if err := caller.actFor(req.UserID); err != nil {
		return err
	}
	submission := Submission{Request: req, IdempotencyKey: key, Caller: caller.Name}
	run, existing, err := a.service.Execute(r.Context(), submission)
	if err != nil {
		return fmt.Errorf("execute: %w", err)
	}
	w.Header().Set("Location", runPath(run.RunID))
	if existing {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	switch {
	case prefersAsync(r.Header):
		w.Header().Set("Preference-Applied", "respond-async")
		return a.writeJSON(w, http.StatusAccepted, run)
	case chosen == formEvents:
		err = a.relay(w, r, run.RunID, 0)
	default:
		err = a.awaitResult(w, r, run)
	}
	if err != nil {
		return &answerError{error: err, runID: run.RunID}
	}
	return nil
}

// awaitResult answers with a run's result or error once it has ended.
func (a *api) awaitResult(w http.ResponseWriter, r *http.Request, run protocol.Run) error {
	if !run.Status.Ended() {
		if err := a.await(r.Context(), run); err != nil {
			return err
		}
		var err error
		if run, err = a.service.Run(r.Context(), run.RunID); err != nil {
			return fmt.Errorf("read ended run: %w", err)
		}
	}
	switch {
	case run.Error != nil:
		return &protocol.Error{Code: run.Error.Code, Message: run.Error.Message}
	case run.Result != nil:
		return a.writeJSON(w, http.StatusOK, run.Result)
	}
	return fmt.Errorf("run %s is %s but has neither result nor error", run.RunID, run.Status)
}

// await reads a run's events to the end.
func (a *api) await(ctx context.Context, run protocol.Run) error {
	reader, err := a.service.Events(ctx, run.RunID, run.LastSeq)
	if err != nil {
		return fmt.Errorf("wait for run: %w", err)
	}
	defer reader.Close()
	for {
		if _, err := reader.Next(ctx); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("wait for run: %w", err)
		}
	}
}

// relay answers with a run's events after the given seq, to the end.
func (a *api) relay(w http.ResponseWriter, r *http.Request, runID string, after int64) error {
	reader, err := a.service.Events(r.Context(), runID, after)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	s, ctx := a.openStream(r.Context(), w)
	defer s.close()
	s.startSoon()
	for r.Method != http.MethodHead {
		batch, err := reader.Next(ctx)
		if len(batch) > 0 {
			if err := s.events(batch); err != nil {
				return s.fail(ctx, err)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return s.start()
		case ctx.Err() != nil:
			return fmt.Errorf("relay events: %w", context.Cause(ctx))
		case err != nil:
			return s.fail(ctx, fmt.Errorf("read events: %w", err))
		}
	}
	return s.start()
}

// followRun serves GET /v1/runs/{run_id}/events.
func (a *api) followRun(w http.ResponseWriter, r *http.Request) error {
	after, err := resumePoint(r)
	if err != nil {
		return err
	}
	return a.relay(w, r, r.PathValue("run_id"), after)
}

// showRun serves GET /v1/runs/{run_id}.
func (a *api) showRun(w http.ResponseWriter, r *http.Request) error {
	run, err := a.service.Run(r.Context(), r.PathValue("run_id"))
	if err != nil {
		return fmt.Errorf("show run: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, run)
}

// cancelRun serves POST /v1/runs/{run_id}/cancel: 202 while the run is still
// ending, 200 once it has ended. Both show the run.
func (a *api) cancelRun(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("run_id")
	if err := a.service.Cancel(r.Context(), id); err != nil {
		return fmt.Errorf("cancel run: %w", err)
	}
	run, err := a.service.Run(r.Context(), id)
	if err != nil {
		return fmt.Errorf("show canceled run: %w", err)
	}
	if run.Status.Ended() {
		return a.writeJSON(w, http.StatusOK, run)
	}
	return a.writeJSON(w, http.StatusAccepted, run)
}

// decide serves POST /v1/runs/{run_id}/approvals/{approval_id}.
func (a *api) decide(w http.ResponseWriter, r *http.Request) error {
	var d protocol.ApprovalDecision
	if err := readJSON(w, r, &d); err != nil {
		return err
	}
	if d.Decision != protocol.Allow && d.Decision != protocol.Deny {
		return invalid("decision: must be %q or %q", protocol.Allow, protocol.Deny)
	}
	if err := checkSize("reason", len(d.Reason), maxReasonBytes); err != nil {
		return err
	}
	id := r.PathValue("approval_id")
	if err := a.service.Approve(r.Context(), r.PathValue("run_id"), id, d); err != nil {
		return fmt.Errorf("decide approval: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, protocol.ApprovalResolved{ApprovalID: id, Decision: d.Decision, Reason: d.Reason})
}

// Bounds of GET /v1/runs.
const (
	defaultRunsLimit = 50
	maxRunsLimit     = 200
	maxCursorBytes   = 256
)

// listRuns serves GET /v1/runs.
func (a *api) listRuns(w http.ResponseWriter, r *http.Request) error {
	q, err := runQuery(r)
	if err != nil {
		return err
	}
	// The selection is the caller's own whatever it sends; a cursor says where in
	// it a page begins, and opens no other.
	if caller := CallerOf(r.Context()); !caller.Admin {
		if q.UserID == "" {
			q.UserID = caller.User
		}
		if err := caller.actFor(q.UserID); err != nil {
			return err
		}
	}
	page, err := a.service.Runs(r.Context(), q)
	if err != nil {
		return fmt.Errorf("list runs: %w", err)
	}
	if page.Runs == nil {
		page.Runs = []protocol.Run{} // an empty list, not null
	}
	return a.writeJSON(w, http.StatusOK, page)
}

// runQuery reads the query of GET /v1/runs. An empty parameter is as good as
// none.
func runQuery(r *http.Request) (protocol.RunQuery, error) {
	values := r.URL.Query()
	q := protocol.RunQuery{
		UserID:    values.Get("user_id"),
		SessionID: values.Get("session_id"),
		Status:    protocol.RunStatus(values.Get("status")),
		Cursor:    values.Get("cursor"),
		Limit:     defaultRunsLimit,
	}
	if q.UserID != "" {
		if err := protocol.CheckUserID(q.UserID); err != nil {
			return q, err
		}
	}
	if q.SessionID != "" {
		if err := protocol.CheckSessionID(q.SessionID); err != nil {
			return q, err
		}
	}
	statuses := []protocol.RunStatus{
		protocol.StatusQueued, protocol.StatusRunning, protocol.StatusFinished,
		protocol.StatusFailed, protocol.StatusCanceled, protocol.StatusInterrupted,
	}
	if q.Status != "" && !slices.Contains(statuses, q.Status) {
		return q, invalid("query parameter status: must be one of %v", statuses)
	}
	if limit := values.Get("limit"); limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 || n > maxRunsLimit {
			return q, invalid("query parameter limit: must be 1 to %d", maxRunsLimit)
		}
		q.Limit = n
	}
	if len(q.Cursor) > maxCursorBytes || hasControl(q.Cursor) {
		return q, invalid("query parameter cursor: is none that a page gave")
	}
	return q, nil
}
