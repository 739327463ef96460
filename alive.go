package carrel

import "context"

// Alive answers nil once the store's writer, the pool and the table of runs have each
// done something that any run takes: what hangs in one of them keeps it from
// answering. A full disk is no death, and what a client sent or a worker did is not asked
// about. It does not answer before it knows, except that ctx's end ends the wait for the
// store. Errors: what the store answers.
func (o *Orchestrator) Alive(ctx context.Context) error {
	o.countGoing()
	o.pool.Figures()
	return o.store.Ping(ctx)
}
