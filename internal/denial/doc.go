// Package denial tells which layer of the sandbox has denied something.
//
// The kernel does not: Landlock, a mount and a seccomp filter answer with the same few
// errnos as a file's own mode does, and its log of them is the host's, off by default
// and not carrel's to switch on. So there are two ways:
//
//	a file tool   has the errno, the path and what it wanted: OfError
//	a command     has its last words, as the C library and the languages' own write an
//	              errno, and how it ended: Watch. What is read out of those is marked
//	              as inferred, "likely" in words.
//
// It rather says nothing than something wrong: whatever an ordinary user's own files
// may be the reason of (a script without its execute bit, a file of mode 0) is none of
// the sandbox's denials. It runs in the worker, on what tools print; all it asks of the
// file system is access(2) of paths in directories that no tool can write.
package denial
