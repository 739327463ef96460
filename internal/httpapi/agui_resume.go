package httpapi

import (
	"context"
	"fmt"
	"slices"

	"carrel/internal/agui"
	"carrel/protocol"
)

// resumeAGUI answers the questions that an AG-UI run was interrupted for, and shows our
// run from there on. What became of each answer, the run's own events tell: it may have
// come too late, or be the second.
func (a *api) resumeAGUI(ctx context.Context, req *aguiRequest) (*aguiView, error) {
	known, run, err := a.knownAnswers(ctx, req)
	if err != nil {
		return nil, err
	}
	at, err := a.lastAsked(ctx, run, &known)
	if err != nil {
		return nil, err
	}
	if len(known) == 0 {
		return nil, protocol.Errorf(protocol.CodeNotFound, "resume: the thread has no such interrupt")
	}
	if err := a.refuseNewMessage(ctx, req); err != nil {
		return nil, err
	}
	ignored := req.Ignored
	for i, answer := range req.Resume {
		if !slices.ContainsFunc(known, func(k agui.Answer) bool { return k.InterruptID == answer.InterruptID }) {
			ignored = append(ignored, fmt.Sprintf("resume[%d]", i))
		}
	}
	view := newAGUIView(req, run.RunID, ignored)
	view.after = at
	if err := a.replay(ctx, run, func(ev protocol.Event) bool {
		view.run.Take(ev)
		return ev.Seq < at
	}); err != nil {
		return nil, err
	}
	var ids []string
	for _, answer := range known {
		ids = append(ids, answer.InterruptID)
		err := a.service.Approve(ctx, run.RunID, answer.ApprovalID, answer.Decision)
		// Neither is an error here: it was answered before, and the events tell how.
		if code := protocol.CodeOf(err); err != nil && code != protocol.CodeNotFound && code != protocol.CodeConflict {
			return nil, fmt.Errorf("answer %s: %w", answer.InterruptID, err)
		}
	}
	view.run.Resume(ids)
	return view, nil
}

// knownAnswers are those of the answers that name a run of the user's in this thread,
// which must be the same for all, and that run. To others there is no such run.
func (a *api) knownAnswers(ctx context.Context, req *aguiRequest) (known []agui.Answer, run protocol.Run, err error) {
	for i, answer := range req.Resume {
		if answer.RunID == "" {
			continue
		}
		named, err := a.service.Run(ctx, answer.RunID)
		switch {
		case err != nil && protocol.CodeOf(err) != protocol.CodeNotFound:
			return nil, run, fmt.Errorf("look for the interrupted run: %w", err)
		case err != nil || named.UserID != req.user || named.SessionID != req.ThreadID:
			continue
		case len(known) > 0 && named.RunID != run.RunID:
			return nil, run, invalid("resume[%d]: answers another run than the entries before it", i)
		}
		known, run = append(known, answer), named
	}
	return known, run, nil
}

// lastAsked finds the last of the questions that are answered, and drops the answers to
// questions that the run never asked.
func (a *api) lastAsked(ctx context.Context, run protocol.Run, answers *[]agui.Answer) (seq int64, err error) {
	if len(*answers) == 0 {
		return 0, nil
	}
	asked := map[string]bool{}
	err = a.replay(ctx, run, func(ev protocol.Event) bool {
		id, ok := agui.AskedIn(ev)
		if ok && slices.ContainsFunc(*answers, func(answer agui.Answer) bool { return answer.InterruptID == id }) {
			asked[id], seq = true, ev.Seq
		}
		return true
	})
	*answers = slices.DeleteFunc(*answers, func(answer agui.Answer) bool { return !asked[answer.InterruptID] })
	return seq, err
}

// refuseNewMessage refuses a resume that brings a message as well: it would be lost.
func (a *api) refuseNewMessage(ctx context.Context, req *aguiRequest) error {
	if !req.IsLast {
		return nil
	}
	run, _, err := a.runOfMessage(ctx, req)
	if err == nil && run.RunID == "" {
		err = protocol.Errorf(protocol.CodeConflict, "messages: the last is a new one: resume first, and send it then")
	}
	return err
}
