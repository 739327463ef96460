package pool

import (
	"cmp"
	"slices"

	"carrel/internal/engine"
	"carrel/protocol"
)

// look calls f with the state as it is. It changes nothing.
func (p *Pool) look(f func(*state)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.state)
}

// seen is a worker at one moment, and the process to ask what it uses.
type seen struct {
	protocol.Sandbox

	id   uint64
	proc engine.Process
}

func (s *state) see(w *worker) seen {
	sandbox := protocol.Sandbox{
		State:      w.state.shown(),
		StartedAt:  w.startedAt,
		LastUsedAt: w.usedAt,
		Runs:       w.served,
		ActiveRuns: w.active,
		Isolation:  s.o.Isolation,
	}
	if w.user != nil {
		sandbox.UserID = w.user.id
	}
	if w.proc != nil {
		sandbox.PID = w.proc.PID()
	}
	return seen{Sandbox: sandbox, id: w.id, proc: w.proc}
}

// measure asks for the usage; not under the mutex, since files are read.
func (s *seen) measure() protocol.Sandbox {
	if s.proc != nil {
		usage := s.proc.Usage()
		s.MemoryBytes, s.CPUSeconds = usage.MemoryBytes, usage.CPU.Seconds()
	}
	return s.Sandbox
}

// Sandboxes lists all live workers, first started first.
func (p *Pool) Sandboxes() protocol.Sandboxes {
	var (
		all    []seen
		result protocol.Sandboxes
	)
	p.look(func(s *state) {
		for w := range s.workers {
			all = append(all, s.see(w))
		}
		result.Warm, result.Queued = s.ready.Len(), s.queued
	})
	slices.SortFunc(all, func(a, b seen) int { return cmp.Compare(a.id, b.id) })
	result.Sandboxes = make([]protocol.Sandbox, len(all))
	for i := range all {
		result.Sandboxes[i] = all[i].measure()
	}
	return result
}

// Sandbox returns the user's live worker, if there is one.
func (p *Pool) Sandbox(userID string) (protocol.Sandbox, bool) {
	var (
		one   seen
		found bool
	)
	p.look(func(s *state) {
		if w := s.workerOf(userID); w != nil {
			one, found = s.see(w), true
		}
	})
	return one.measure(), found
}

// workerOf returns the user's worker, also while it ends; nil if there is none.
func (s *state) workerOf(userID string) *worker {
	u := s.users[userID]
	switch {
	case u == nil:
		return nil
	case u.worker != nil:
		return u.worker
	default:
		return u.old
	}
}

// InUse reports whether the user has a worker, a lease or a waiting run: whether
// the user's directory may be touched any moment.
func (p *Pool) InUse(userID string) bool {
	var inUse bool
	p.look(func(s *state) { inUse = s.users[userID] != nil })
	return inUse
}

// Figures counts what the pool holds.
func (p *Pool) Figures() protocol.PoolFigures {
	f := protocol.PoolFigures{MaxWorkers: p.o.MaxWorkers, QueueSize: p.o.QueueSize, ByState: make(map[string]int)}
	p.look(func(s *state) {
		f.Workers, f.Warm, f.Queued = s.live(), s.ready.Len(), s.queued
		for st, n := range s.count {
			if workerState(st) != dead {
				f.ByState[string(workerState(st).shown())] += n
			}
		}
	})
	return f
}
