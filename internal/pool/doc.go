// Package pool owns the life of workers: it starts them ahead of need, binds
// each to one user, lends them to runs, queues whoever must wait, retires what
// is idle, replaces what is worn, and tells how each one died. It knows a worker
// process only through [engine.Engine] and talks to it through package jsonrpc.
//
// # Who runs
//
// Goroutines, and who waits for them:
//
//   - [Pool.Run] is the clock: it retires what has been idle too long, and lets
//     starts happen whose backoff has passed. It returns last of all.
//   - Each worker has one goroutine from before its process starts until after
//     its whole tree is gone (live, in live.go): the only one that starts, binds,
//     pings, asks to exit, kills and reaps it. Run waits for all of them.
//   - That goroutine runs the worker's connection and at most one ping beside
//     itself, and waits for both.
//   - Acquire, Execute, Retire and Shutdown work in their callers' goroutines.
//
// # How state changes
//
// Everything shared lies in one struct, [state], under one mutex, and changes
// only inside Pool.update. The function given to update never blocks: what it
// wants done to the world (start a process, end one, wake a waiter) it leaves in
// state.effects, and update does that after unlocking. Before update unlocks,
// state.settle gives out whatever the change has made available, so outside of
// update no run waits for something that is there.
//
// Besides that mutex there are those of a worker's calls (calls.go), which order
// the events of runs. They are never taken while Pool's mutex is held, nor the
// other way round, so there is no order between them to keep; only the mutex of
// one stream is taken alone around its sink.
//
// # Whose turn it is
//
// Users with waiting runs stand in a ring. A turn is one worker: it goes to the
// first user in the ring that has none, and takes as many of the user's runs, in
// their order, as run side by side (MaxRunsPerUser). The user then goes to the
// ring's end. As long as nobody waits in vain, a worker goes on serving its
// user. When a user waits and there is neither room nor an idle worker to
// retire, the next busy worker that ends a run, or is asked for another, yields:
// it takes no new runs and is retired after those it has. So whatever one user
// has waiting, another's first run waits for one fill of one worker at most.
package pool
