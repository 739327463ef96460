package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeService keeps runs in memory. Unless a hook is set, each run ends at once
// with three events.
type fakeService struct {
	// Hooks; nil: the default.
	onExecute func(f *fakeService, run *protocol.Run)
	onExec    func(ctx context.Context, user string, req protocol.ExecRequest, sink ExecSink) (protocol.ExecResult, error)
	onEvents  func(ctx context.Context, id string, after int64) (EventReader, error)
	onOpen    func(path string) (OpenFile, error)
	onApprove func(runID, approvalID string) error
	readyErr  error
	failure   error // of every method but Ready

	mu          sync.Mutex // guards all below
	runs        map[string]*fakeRun
	byKey       map[string]string
	submissions []Submission
	queries     []protocol.RunQuery
	users       []string // as Exec, Sandbox and RetireSandbox saw them
	purged      []bool
	readers     int // open now
	decided     []protocol.ApprovalDecision
	calls       int // of what is not seen above
	largeRead   int // how often largeSession was
}

// largeSession has a transcript that no buffer of a connection takes in.
const largeSession = "large"

type fakeRun struct {
	run    protocol.Run
	events []protocol.Event
	grown  chan struct{} // closed and replaced at every change
}

func newFake() *fakeService {
	return &fakeService{runs: map[string]*fakeRun{}, byKey: map[string]string{}}
}

var fakeTime = time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)

// add makes a run without events.
func (f *fakeService) add(user string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("run_%d", len(f.runs)+1)
	f.runs[id] = &fakeRun{
		run:   protocol.Run{RunID: id, UserID: user, SessionID: "s", Status: protocol.StatusRunning, CreatedAt: fakeTime},
		grown: make(chan struct{}),
	}
	return id
}

// emit appends an event; a last one ends the run.
func (f *fakeService) emit(id string, t protocol.EventType, data any) {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.runs[id]
	r.run.LastSeq++
	r.events = append(r.events, protocol.Event{RunID: id, Seq: r.run.LastSeq, Time: fakeTime, Type: t, Data: raw})
	switch d := data.(type) {
	case protocol.Result:
		r.run.Result, r.run.Status = &d, protocol.StatusFinished
	case protocol.RunError:
		r.run.Error, r.run.Status = &d, protocol.StatusOf(t, d.Code)
	}
	close(r.grown)
	r.grown = make(chan struct{})
}

func (f *fakeService) openReaders() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readers
}

func result(id, content string) protocol.Result {
	return protocol.Result{RunID: id, SessionID: "s", Status: protocol.StatusFinished, Content: content, ToolCalls: []protocol.ToolCall{}}
}

func (f *fakeService) Execute(ctx context.Context, s Submission) (protocol.Run, bool, error) {
	if f.failure != nil {
		return protocol.Run{}, false, f.failure
	}
	f.mu.Lock()
	f.submissions = append(f.submissions, s)
	old, existing := f.byKey[s.Caller+" "+s.IdempotencyKey]
	f.mu.Unlock()
	if existing && s.IdempotencyKey != "" {
		run, err := f.Run(ctx, old)
		return run, true, err
	}
	id := f.add(s.Request.UserID)
	f.mu.Lock()
	f.byKey[s.Caller+" "+s.IdempotencyKey] = id
	run := f.runs[id].run
	f.mu.Unlock()
	if f.onExecute != nil {
		f.onExecute(f, &run)
		return run, false, nil
	}
	f.emit(id, protocol.EventRunStarted, protocol.RunStarted{SessionID: "s", Agent: "shell"})
	f.emit(id, protocol.EventTextDelta, protocol.TextDelta{Text: "hi\n<b>"})
	f.emit(id, protocol.EventRunFinished, result(id, "hi"))
	return run, false, nil
}

func (f *fakeService) Run(_ context.Context, id string) (protocol.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil {
		return protocol.Run{}, f.failure
	}
	r, ok := f.runs[id]
	if !ok {
		return protocol.Run{}, protocol.Errorf(protocol.CodeNotFound, "there is no run %q", id)
	}
	return r.run, nil
}

func (f *fakeService) RunOfKey(ctx context.Context, caller, key string) (protocol.Run, error) {
	f.mu.Lock()
	id := f.byKey[caller+" "+key]
	f.mu.Unlock()
	return f.Run(ctx, id)
}

func (f *fakeService) Owner(ctx context.Context, id string) (string, error) {
	run, err := f.Run(ctx, id)
	return run.UserID, err
}

func (f *fakeService) Runs(_ context.Context, q protocol.RunQuery) (protocol.RunPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	var page protocol.RunPage
	for _, r := range f.runs {
		if q.Status != "" && r.run.Status == q.Status && r.run.UserID == q.UserID && r.run.SessionID == q.SessionID {
			page.Runs = append(page.Runs, r.run)
		}
	}
	return page, f.failure
}

func (f *fakeService) Cancel(ctx context.Context, id string) error {
	f.called()
	run, err := f.Run(ctx, id)
	if err == nil && run.UserID != "stubborn" && !run.Status.Ended() {
		f.emit(id, protocol.EventRunError, protocol.RunError{Code: protocol.CodeCanceled, Message: "canceled"})
	}
	return err
}

func (f *fakeService) Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error {
	if _, err := f.Run(ctx, runID); err != nil {
		return err
	}
	f.mu.Lock()
	asked := slices.ContainsFunc(f.runs[runID].events, func(ev protocol.Event) bool {
		return strings.Contains(string(ev.Data), `"approval_id":"`+approvalID+`"`)
	})
	f.mu.Unlock()
	if approvalID != "apr_1" && !asked {
		return protocol.Errorf(protocol.CodeNotFound, "no approval %q", approvalID)
	}
	if f.onApprove != nil {
		if err := f.onApprove(runID, approvalID); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decided = append(f.decided, d)
	return nil
}

func (f *fakeService) AddAttachment(_ context.Context, userID, name, mediaType string, body io.Reader) (protocol.AttachmentInfo, error) {
	content, err := io.ReadAll(body)
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users = append(f.users, userID)
	return protocol.AttachmentInfo{ID: "file_1", Name: name, Type: mediaType, Size: int64(len(content)), SHA256: sumOf(string(content))}, nil
}

func sumOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// fakeFile is one file, or the directory it lies in.
type fakeFile struct {
	*strings.Reader

	info protocol.FileInfo
}

func (f fakeFile) Close() error            { return nil }
func (f fakeFile) Info() protocol.FileInfo { return f.info }
func (f fakeFile) ETag() string            { return `"1"` }

func (f fakeFile) List(_ context.Context, cursor string, limit int) (protocol.FileList, error) {
	return protocol.FileList{Files: []protocol.FileInfo{{Name: cursor, Type: protocol.FileRegular, Size: int64(limit), Mode: "0644"}}}, nil
}

func (f fakeFile) Archive(_ context.Context, w io.Writer) (int, error) {
	_, err := io.WriteString(w, "tar")
	return 3, err
}

// OpenFile knows the directories "" and "d", and the file "f".
func (f *fakeService) OpenFile(_ context.Context, userID, path string) (OpenFile, error) {
	f.saw(userID + ":" + path)
	if f.onOpen != nil {
		return f.onOpen(path)
	}
	info := protocol.FileInfo{Name: path, Type: protocol.FileRegular, Size: 10, ModifiedAt: fakeTime, Mode: "0644"}
	switch path {
	case "", "d":
		info.Type = protocol.FileDirectory
	case "f":
	default:
		return nil, protocol.Errorf(protocol.CodeNotFound, "no file %q", path)
	}
	return fakeFile{strings.NewReader("0123456789"), info}, f.failure
}

func (f *fakeService) PutFile(_ context.Context, userID string, u FileUpload) (StoredFile, error) {
	f.saw(fmt.Sprintf("%s:%s %d", userID, u.Path, u.Bytes))
	etag := ""
	if u.Path == "f" {
		etag = `"1"`
	}
	if u.When != nil {
		if err := u.When(etag); err != nil {
			return StoredFile{}, err
		}
	}
	content, err := io.ReadAll(u.Body)
	if err != nil {
		return StoredFile{}, err
	}
	return StoredFile{Info: protocol.FileInfo{Name: string(content), Type: protocol.FileRegular, Mode: "0644"}, ETag: `"2"`, Created: etag == ""}, f.failure
}

func (f *fakeService) UnpackFiles(_ context.Context, userID string, u FileUpload) (protocol.UnpackResult, error) {
	f.saw(userID + ":tar:" + u.Path)
	_, err := io.Copy(io.Discard, u.Body)
	return protocol.UnpackResult{Entries: 2}, err
}

func (f *fakeService) DeleteFile(_ context.Context, userID, path string, when func(string) error) error {
	f.saw(userID + ":" + path)
	if when != nil {
		return when(`"1"`)
	}
	return f.failure
}

func (f *fakeService) ListSessions(context.Context, string) (protocol.SessionList, error) {
	f.called()
	return protocol.SessionList{Sessions: []protocol.SessionInfo{{SessionID: "s"}}}, nil
}

func (f *fakeService) ReadSession(_ context.Context, _, sessionID string) (protocol.Transcript, error) {
	f.called()
	if sessionID == largeSession {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.largeRead++
		return protocol.Transcript{Entries: []json.RawMessage{[]byte(`"` + strings.Repeat("x", 64<<10) + `"`)}}, nil
	}
	if sessionID != "s" {
		return protocol.Transcript{}, protocol.Errorf(protocol.CodeNotFound, "no session %q", sessionID)
	}
	return protocol.Transcript{SessionID: sessionID, Entries: []json.RawMessage{}}, nil
}

func (f *fakeService) DeleteSession(ctx context.Context, userID, sessionID string) error {
	_, err := f.ReadSession(ctx, userID, sessionID)
	return err
}

func (f *fakeService) ForkSession(ctx context.Context, userID, sessionID, fork string) (protocol.SessionInfo, error) {
	_, err := f.ReadSession(ctx, userID, sessionID)
	return protocol.SessionInfo{SessionID: fork}, err
}

func (f *fakeService) Events(ctx context.Context, id string, after int64) (EventReader, error) {
	f.called()
	if f.onEvents != nil {
		return f.onEvents(ctx, id, after)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.runs[id]
	if !ok {
		return nil, protocol.Errorf(protocol.CodeNotFound, "there is no run %q", id)
	}
	f.readers++
	return &fakeReader{service: f, run: r, after: after}, nil
}

type fakeReader struct {
	service *fakeService
	run     *fakeRun
	after   int64
}

func (r *fakeReader) Next(ctx context.Context) ([]protocol.Event, error) {
	for {
		r.service.mu.Lock()
		var batch []protocol.Event
		if r.after < int64(len(r.run.events)) {
			batch = r.run.events[r.after:]
		}
		ended, grown := r.run.run.Status.Ended(), r.run.grown
		r.service.mu.Unlock()
		if len(batch) > 0 {
			r.after += int64(len(batch))
			return batch, nil
		}
		if ended {
			return nil, io.EOF
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *fakeReader) Close() {
	r.service.mu.Lock()
	defer r.service.mu.Unlock()
	r.service.readers--
}

func (f *fakeService) called() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
}

func (f *fakeService) saw(user string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users = append(f.users, user)
}

func (f *fakeService) Exec(ctx context.Context, user string, req protocol.ExecRequest, sink ExecSink) (protocol.ExecResult, error) {
	f.saw(user)
	if f.onExec != nil {
		return f.onExec(ctx, user, req, sink)
	}
	return protocol.ExecResult{Stdout: "out", Stderr: "err", ExitCode: 3}, f.failure
}

func (f *fakeService) Sandboxes(context.Context) (protocol.Sandboxes, error) {
	f.called()
	return protocol.Sandboxes{Warm: 2}, f.failure
}

func (f *fakeService) Sandbox(_ context.Context, user string) (protocol.SandboxInfo, error) {
	f.saw(user)
	return protocol.SandboxInfo{UserID: user, Isolation: fakeIsolation()}, f.failure
}

func (f *fakeService) RetireSandbox(_ context.Context, user string, purge bool) error {
	f.saw(user)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.purged = append(f.purged, purge)
	return f.failure
}

func (f *fakeService) System(context.Context) (protocol.System, error) {
	f.called()
	return protocol.System{
		Version: "v", Isolation: fakeIsolation(), Pool: protocol.PoolFigures{ByState: map[string]int{}}, Configuration: map[string]string{},
	}, f.failure
}

func fakeIsolation() protocol.IsolationReport {
	return protocol.IsolationReport{Mode: "strict", State: "strict", Layers: []protocol.Layer{}}
}

func (f *fakeService) Ready(context.Context) error { return f.readyErr }
