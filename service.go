package carrel

import (
	"context"
	"io"

	"carrel/internal/httpapi"
	"carrel/protocol"
)

// service is the Orchestrator as the HTTP API asks for it.
type service struct{ o *Orchestrator }

var _ httpapi.Service = service{}

func (s service) Execute(ctx context.Context, sub httpapi.Submission) (protocol.Run, bool, error) {
	return s.o.execute(ctx, sub.Request, sub.Caller, sub.IdempotencyKey)
}

func (s service) Cancel(ctx context.Context, runID string) error { return s.o.Cancel(ctx, runID) }

func (s service) Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error {
	return s.o.Approve(ctx, runID, approvalID, d)
}

func (s service) Run(ctx context.Context, runID string) (protocol.Run, error) {
	return s.o.Run(ctx, runID)
}

func (s service) RunOfKey(ctx context.Context, caller, key string) (protocol.Run, error) {
	return s.o.store.RunOfKey(ctx, caller, key)
}

func (s service) Owner(ctx context.Context, runID string) (string, error) {
	return s.o.store.Owner(ctx, runID)
}

func (s service) Runs(ctx context.Context, q protocol.RunQuery) (protocol.RunPage, error) {
	return s.o.store.Runs(ctx, q)
}

func (s service) Events(ctx context.Context, runID string, after int64) (httpapi.EventReader, error) {
	return s.o.store.Events(ctx, runID, after)
}

func (s service) Exec(ctx context.Context, userID string, req protocol.ExecRequest, sink httpapi.ExecSink) (protocol.ExecResult, error) {
	return s.o.Exec(ctx, userID, req, sink)
}

func (s service) AddAttachment(ctx context.Context, userID, name, mediaType string, body io.Reader) (protocol.AttachmentInfo, error) {
	return s.o.AddAttachment(ctx, userID, name, mediaType, body)
}

func (s service) OpenFile(ctx context.Context, userID, path string) (httpapi.OpenFile, error) {
	file, err := s.o.OpenFile(ctx, userID, path)
	if err != nil {
		return nil, err // and no nil pointer in an interface
	}
	return file, nil
}

func (s service) PutFile(ctx context.Context, userID string, u httpapi.FileUpload) (httpapi.StoredFile, error) {
	stored, err := s.o.PutFile(ctx, userID, FileUpload(u))
	return httpapi.StoredFile(stored), err
}

func (s service) UnpackFiles(ctx context.Context, userID string, u httpapi.FileUpload) (protocol.UnpackResult, error) {
	return s.o.UnpackFiles(ctx, userID, FileUpload(u))
}

func (s service) DeleteFile(ctx context.Context, userID, path string, when func(etag string) error) error {
	return s.o.DeleteFile(ctx, userID, path, when)
}

func (s service) ListSessions(ctx context.Context, userID string) (protocol.SessionList, error) {
	return s.o.ListSessions(ctx, userID)
}

func (s service) ReadSession(ctx context.Context, userID, sessionID string) (protocol.Transcript, error) {
	return s.o.ReadSession(ctx, userID, sessionID)
}

func (s service) DeleteSession(ctx context.Context, userID, sessionID string) error {
	return s.o.DeleteSession(ctx, userID, sessionID)
}

func (s service) ForkSession(ctx context.Context, userID, sessionID, fork string) (protocol.SessionInfo, error) {
	return s.o.ForkSession(ctx, userID, sessionID, fork)
}

func (s service) Sandboxes(context.Context) (protocol.Sandboxes, error) {
	return s.o.Sandboxes(), nil
}

func (s service) Sandbox(ctx context.Context, userID string) (protocol.SandboxInfo, error) {
	return s.o.Sandbox(ctx, userID)
}

func (s service) RetireSandbox(ctx context.Context, userID string, purge bool) error {
	return s.o.RetireSandbox(ctx, userID, purge)
}

func (s service) System(context.Context) (protocol.System, error) { return s.o.System(), nil }

func (s service) Ready(ctx context.Context) error {
	if s.o.isClosing() {
		return protocol.Errorf(protocol.CodeShuttingDown, "the daemon is shutting down")
	}
	return s.o.auditable(ctx)
}
