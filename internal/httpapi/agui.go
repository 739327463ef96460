package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"carrel/internal/agui"
	"carrel/protocol"
)

const (
	// maxAGUIBytes bounds a RunAgentInput: it holds the whole conversation each time.
	maxAGUIBytes = 8 << 20
	// maxAGUIRetries is how often a message whose runs all failed may be run again.
	maxAGUIRetries = 64
	// maxThreadRuns is how many going runs of a thread are asked whether they wait.
	maxThreadRuns = 50
)

// aguiRequest is a RunAgentInput and what it asks of us.
type aguiRequest struct {
	agui.Input

	user   string
	caller string // its name
	config protocol.RunConfig
}

// aguiView is a run as it will be shown: from the event after a seq on, behind what
// comes first.
type aguiView struct {
	run   *agui.Run
	ours  string
	after int64
	first []agui.Event
}

// runAGUI serves POST /v1/ag-ui. What can be refused is refused before the stream
// begins; after that AG-UI has its own event for errors.
func (a *api) runAGUI(w http.ResponseWriter, r *http.Request) error {
	if accept := strings.Join(r.Header.Values("Accept"), ","); strings.TrimSpace(accept) != "" {
		if weight, _ := quality(accept, "text", "event-stream"); weight == 0 {
			return &answerError{error: invalid("Accept: must allow text/event-stream"), status: http.StatusNotAcceptable}
		}
	}
	req, err := readAGUI(w, r)
	if err != nil {
		return err
	}
	var view *aguiView
	switch {
	case len(req.Resume) > 0:
		view, err = a.resumeAGUI(r.Context(), req)
	case req.Message == nil:
		return invalid("messages: there is no user's message, and resume answers no interrupt")
	default:
		view, err = a.beginAGUI(r.Context(), req)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Location", runPath(view.ours))
	if err := a.showAGUI(w, r, view); err != nil {
		return &answerError{error: err, runID: view.ours}
	}
	return nil
}

// readAGUI reads the body and checks it as that of POST /v1/execute is.
func readAGUI(w http.ResponseWriter, r *http.Request) (*aguiRequest, error) {
	user, err := userInHeader(r)
	if err != nil {
		return nil, err
	}
	if err := checkContentType(r.Header); err != nil {
		return nil, err
	}
	body, err := readBody(w, r, maxAGUIBytes)
	if err != nil {
		return nil, err
	}
	if err := checkUTF8(body); err != nil {
		return nil, err
	}
	req := &aguiRequest{user: user, caller: CallerOf(r.Context()).Name}
	if req.Input, err = agui.ReadInput(body); err != nil {
		return nil, fmt.Errorf("read RunAgentInput: %w", err)
	}
	if err := checkSurrogates(body); err != nil {
		return nil, err
	}
	var props struct {
		Config protocol.RunConfig `json:"config"`
	}
	if len(req.Carrel) > 0 {
		if err := decodeJSON(req.Carrel, &props); err != nil {
			return nil, invalid("forwardedProps.carrel: %s", errorOf(err).Message)
		}
	}
	req.config = props.Config
	for i, answer := range req.Resume {
		if err := checkSize(fmt.Sprintf("resume[%d].payload.reason", i), len(answer.Decision.Reason), maxReasonBytes); err != nil {
			return nil, err
		}
	}
	return req, checkRunConfig(req.config)
}

// beginAGUI finds or starts the run of the user's last message.
//
// A message is run once. So a client whose stream broke off asks again with what it
// has, and is shown the same run; if it kept a part of the answer, a snapshot takes
// that back first. A run that failed is shown again to who has a part of it, and the
// message is run again for who sends it anew.
func (a *api) beginAGUI(ctx context.Context, req *aguiRequest) (*aguiView, error) {
	run, key, err := a.runOfMessage(ctx, req)
	if err != nil {
		return nil, err
	}
	isFailed := run.Status.Ended() && run.Status != protocol.StatusFinished
	switch {
	case run.RunID != "" && (!isFailed || !req.IsLast):
	case !req.IsLast:
		return nil, invalid("messages: the last must be the user's; what comes before it has no run of the last day to show again")
	default:
		if err := a.refuseWhileAsked(ctx, req); err != nil {
			return nil, err
		}
		execute := protocol.ExecuteRequest{
			UserID: req.user, SessionID: req.ThreadID, Message: req.Message.Text, Attachments: req.Message.Attachments, Config: req.config,
		}
		if err := checkExecute(execute); err != nil {
			return nil, err
		}
		submission := Submission{Request: execute, IdempotencyKey: key, Caller: req.caller}
		if run, _, err = a.service.Execute(ctx, submission); err != nil {
			return nil, fmt.Errorf("execute: %w", err)
		}
	}
	view := newAGUIView(req, run.RunID, req.Ignored)
	if !req.IsLast {
		view.first = append(view.first, agui.Event{Type: agui.MessagesSnapshot, Messages: req.Message.UpToHere})
	}
	return view, nil
}

func newAGUIView(req *aguiRequest, ours string, ignored []string) *aguiView {
	run := agui.NewRun(req.ThreadID, req.RunID, ours)
	return &aguiView{run: run, ours: ours, first: []agui.Event{run.Begin(ignored)}}
}

// runOfMessage finds the last run of the message, if it has one, and the key under
// which it may be run next.
func (a *api) runOfMessage(ctx context.Context, req *aguiRequest) (run protocol.Run, key string, err error) {
	for n := range maxAGUIRetries {
		if key = req.Key(req.user); n > 0 {
			key += "-" + strconv.Itoa(n)
		}
		found, err := a.service.RunOfKey(ctx, req.caller, key)
		switch {
		case protocol.CodeOf(err) == protocol.CodeNotFound && err != nil:
			return run, key, nil
		case err != nil:
			return run, "", fmt.Errorf("look for the message's run: %w", err)
		case found.UserID != req.user || found.SessionID != req.ThreadID:
			return run, "", protocol.Errorf(protocol.CodeConflict, "the idempotency key was used for another request")
		}
		if run = found; !run.Status.Ended() || run.Status == protocol.StatusFinished {
			return run, key, nil
		}
	}
	return run, "", protocol.Errorf(protocol.CodeConflict, "this message has failed %d times today: send another", maxAGUIRetries)
}

// refuseWhileAsked refuses a new message where a run of the thread waits for an
// answer: it would wait behind it.
func (a *api) refuseWhileAsked(ctx context.Context, req *aguiRequest) error {
	page, err := a.service.Runs(ctx, protocol.RunQuery{
		UserID: req.user, SessionID: req.ThreadID, Status: protocol.StatusRunning, Limit: maxThreadRuns,
	})
	if err != nil {
		return fmt.Errorf("list the thread's runs: %w", err)
	}
	for _, run := range page.Runs {
		shown := agui.NewRun(req.ThreadID, req.RunID, run.RunID)
		if err := a.replay(ctx, run, func(ev protocol.Event) bool { shown.Take(ev); return true }); err != nil {
			return err
		}
		if waits, _ := shown.Waits(); waits {
			var ids []string
			for _, i := range shown.Interrupt().Outcome.Interrupts {
				ids = append(ids, i.ID)
			}
			return protocol.Errorf(protocol.CodeConflict,
				"the thread waits for an answer: resume it, resolved or cancelled, and send the message then; open: %s", strings.Join(ids, ", "))
		}
	}
	return nil
}

// replay gives a run's events that are stored by now, until take is false.
func (a *api) replay(ctx context.Context, run protocol.Run, take func(protocol.Event) bool) error {
	if run.LastSeq == 0 {
		return nil
	}
	reader, err := a.service.Events(ctx, run.RunID, 0)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	for {
		batch, err := reader.Next(ctx)
		for _, ev := range batch {
			if !take(ev) || ev.Seq >= run.LastSeq {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// askedTogether is how long a run that has asked may go on asking before it is
// interrupted: calls of tools that begin together ask one after the other.
const askedTogether = 100 * time.Millisecond

// maxHeldBytes bounds what is kept meanwhile.
const maxHeldBytes = 1 << 20

// showAGUI answers with the events of a view, to an ending or an interrupt.
func (a *api) showAGUI(w http.ResponseWriter, r *http.Request, view *aguiView) error {
	reader, err := a.service.Events(r.Context(), view.ours, view.after)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	s, ctx := a.openStream(r.Context(), w)
	defer s.close()
	if err := s.append(frames(view.first)); err != nil {
		return err
	}
	view.first = nil       // a snapshot may be a whole conversation
	var deadline time.Time // for what is asked together; zero: nothing is asked
	for !view.run.Ended() {
		waits, held := view.run.Waits()
		switch {
		case !waits:
			deadline = time.Time{}
		case held > maxHeldBytes:
			return s.append(frames([]agui.Event{view.run.Interrupt()}))
		case deadline.IsZero():
			deadline = time.Now().Add(askedTogether)
		}
		batch, err := nextBefore(ctx, reader, deadline)
		var out []agui.Event
		for _, ev := range batch {
			out = append(out, view.run.Take(ev)...)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			err = context.Cause(ctx)
			out = append(out, view.run.Fail(errorOf(err).Code, "the stream was ended; the run goes on")...)
		case waits && errors.Is(err, context.DeadlineExceeded):
			out, err = append(out, view.run.Interrupt()), nil
		default: // io.EOF too: an ending would have ended the loop
			out = append(out, view.run.Fail(errorOf(err).Code, errorOf(err).Message)...)
		}
		if sent := s.append(frames(out)); sent != nil || err != nil {
			return fmt.Errorf("show events: %w", errors.Join(err, sent))
		}
	}
	return nil
}

// nextBefore waits for events, until a deadline where there is one.
func nextBefore(ctx context.Context, reader EventReader, deadline time.Time) ([]protocol.Event, error) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	return reader.Next(ctx)
}

func frames(events []agui.Event) func([]byte) ([]byte, error) {
	return func(b []byte) (_ []byte, err error) {
		for _, e := range events {
			if b, err = agui.AppendFrame(b, e); err != nil {
				return b, fmt.Errorf("AG-UI event: %w", err)
			}
		}
		return b, nil
	}
}
