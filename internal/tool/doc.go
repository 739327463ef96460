// Package tool runs commands in the tool tier.
//
// A tool host is a process in the tier (see package jail) that starts commands
// on behalf of the worker. It serves one run at a time and is used again by the
// next only when nothing of the last one is left:
//
//	worker (PID 1)                      tool host                    command
//	  │ hello: limits ────────────────────▶│ enters the tool tier
//	  │◀──────────────────────────── ready │
//	  │ run: argv, env, dir + 3 pipes ────▶│ fork, exec ──────────────▶│
//	  │ (output comes by the pipes) ◀──────┼───────────────────────────│
//	  │                                    │◀────────────────── exit ──│
//	  │                                    │ kills what it left behind, reaps it
//	  │◀──────────────────────── outcome ──│
//
// The first host is on its way before the first command comes. A worker without a
// command for a while lets its hosts go; the next command then starts one.
//
// A host is a child subreaper, so every orphan of its commands is its own child: once
// it has killed all it may signal and has no child left, nothing of the run lives.
// A command may kill or stop its tool host, being in the same domain. The run
// then fails; the worker kills the orphans, which have become its own children,
// and starts another host.
package tool

// ModeHost is the argument that makes carrel-worker a tool host.
const ModeHost = "toolhost"
