// Package store keeps runs, their events and what they cost in SQLite.
//
// Its law: an event is stored, then shown. An event goes this way:
//
//	Append ─► track.pending ─► writer: one transaction ─► track.recent ─► Reader.Next
//	                                     │                                    ▲
//	                                     └────────► table events ─────────────┘
//
// One goroutine writes. While one commit is under way, what comes in collects,
// and makes up the next transaction: the busier the store, the larger its
// batches, without a timer. Readers pull: a [Reader] holds nothing but the
// number of the last event it gave. What follows that number it takes from the
// last committed events kept in memory or, further back, from the table; both
// hold committed events only, so going from replay to live can neither lose nor
// double one, and a slow reader holds nobody up.
//
// Durability: SQLite's WAL with synchronous=NORMAL. What CreateRun and Flush
// have acknowledged survives the death of the process, however it dies. A power
// cut or a crash of the kernel may lose what was acknowledged since the last
// checkpoint; the database stays whole and no run has a gap. FULL would cost a
// disk flush for each batch.
//
// Bounds, each for one run that has not ended: [queueEvents] and [queueBytes]
// waiting to be written (then Append waits), as much in the transaction under
// way, and [recentEvents] and [recentBytes] kept for readers.
//
// Several processes may open one database, but a run's events must come from
// one of them only; a second one gets CodeConflict. Readers in another process
// see the stored events but are not woken by new ones.
//
// Locks: track.mu before Store.mu. No lock is held during a transaction.
package store
