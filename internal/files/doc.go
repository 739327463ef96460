// Package files takes a user's files in and out, whatever the sandbox that owns
// them does with them meanwhile.
//
// A path is walked below a descriptor of the workspace with openat2, which refuses
// symbolic links, "..", and other mounts; nothing is opened but regular files and
// directories, and those by the very inode that was looked at. So a sandbox that
// swaps a name for a link, a pipe or another directory at any moment reaches an
// error, or another of its own files, and never the host's.
//
// What comes in is made whole in a stage, a directory that no sandbox can reach, and
// shown by one rename:
//
//	body → stage/file → owner, mode, sync → rename onto workspace/PATH
//	tar  → stage/tree → sync → rename to workspace/PATH, or, where a directory is
//	                           there, of each part that is not there yet
//
// A removal is the rename the other way; the stage is then emptied.
package files
