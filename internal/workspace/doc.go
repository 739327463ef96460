// Package workspace keeps the users' directories: it makes them, gives each an
// owner of its own, counts what they hold, and removes them.
//
//	<base dir>/           0700, the daemon's
//	  lock                held by the one daemon that uses the base directory
//	  run/                sockets
//	  users/              0700, the daemon's
//	    <slug>-<hash>/    0700, the daemon's: no sandbox ever owns this level
//	      meta.json       whose it is; its time of change is that of the last use
//	      workspace/      0700, the sandbox's own uid
//	      home/           0700, the sandbox's own uid
//	  tmp/                what is half made, and what is on its way out
//
// Everything below workspace/ and home/ is written by a stranger. Nothing there
// is ever named by a path of more than one element: it is reached from the
// descriptor of the directory above it, with openat2 refusing symbolic links,
// ".." and other mounts. A directory appears in users/ by one rename when it is
// whole, and leaves it by one rename before anything in it is touched, so that
// a daemon killed anywhere leaves nothing half done but in tmp/, which the next
// start empties.
//
// Locks, in the order in which they nest: a user's turn (slot.turn), then
// Dirs.mu.
package workspace
