package httpapi

import (
	"context"
	"sync"
)

// maxAnswers is how many transcripts are held at one time, of all users: one has
// 64 MiB at most, and its answer as much again.
const maxAnswers = 8

// turns bounds the transcripts that are in memory until their readers have them: one
// a user, so that who reads slowly waits for himself, and maxAnswers in sum. It is
// safe for concurrent use.
type turns struct {
	all chan struct{} // holds a value for each transcript

	mu    sync.Mutex
	users map[string]*turn
}

// turn is one user's.
type turn struct {
	taken   chan struct{} // holds a value while somebody has it
	waiting int           // or having it; turns.mu guards it
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, maxAnswers), users: make(map[string]*turn)}
}

// take waits for the user's turn, until ctx ends; give it back with give.
func (t *turns) take(ctx context.Context, userID string) (give func(), err error) {
	t.mu.Lock()
	u := t.users[userID]
	if u == nil {
		u = &turn{taken: make(chan struct{}, 1)}
		t.users[userID] = u
	}
	u.waiting++
	t.mu.Unlock()

	select {
	case u.taken <- struct{}{}:
	case <-ctx.Done():
		t.leave(userID, u)
		return nil, context.Cause(ctx)
	}
	select {
	case t.all <- struct{}{}:
	case <-ctx.Done():
		<-u.taken
		t.leave(userID, u)
		return nil, context.Cause(ctx)
	}
	return func() {
		<-t.all
		<-u.taken
		t.leave(userID, u)
	}, nil
}

func (t *turns) leave(userID string, u *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.waiting--; u.waiting == 0 {
		delete(t.users, userID)
	}
}
