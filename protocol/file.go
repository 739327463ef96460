package protocol

import "time"

// FileType is what stands at a name in a user's workspace.
type FileType string

// A FileOther is a FIFO, a socket or a device: it can be listed and deleted.
const (
	FileRegular   FileType = "file"
	FileDirectory FileType = "directory"
	FileLink      FileType = "link"
	FileOther     FileType = "other"
)

// FileInfo is what is known of a name in a user's workspace. The sandbox may change
// all of it at any time.
type FileInfo struct {
	Name string `json:"name"` // empty for the workspace itself
	// NameEscaped is the name percent-encoded, where it is no UTF-8 and Name only
	// resembles it.
	NameEscaped string    `json:"name_escaped,omitempty"`
	Type        FileType  `json:"type"`
	Size        int64     `json:"size"` // of a file; else 0
	ModifiedAt  time.Time `json:"modified_at"`
	Mode        string    `json:"mode"`             // octal, "0644"
	Target      string    `json:"target,omitempty"` // of a link, as text: nothing follows it
}

// FileList is one page of GET /v1/users/{user_id}/files[/{path}] of a directory. A
// page is sorted by name, the pages are in the file system's order.
type FileList struct {
	Files      []FileInfo `json:"files"`
	NextCursor string     `json:"next_cursor,omitempty"`
}

// UnpackResult is the answer to an archive that was unpacked.
type UnpackResult struct {
	Entries int `json:"entries"` // files, directories and links that it named
}
