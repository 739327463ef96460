package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"carrel/protocol"
)

// Action is what a line is about.
type Action string

// The actions.
const (
	DaemonStarted Action = "daemon_started"
	DaemonStopped Action = "daemon_stopped"

	RunSubmitted     Action = "run_submitted"
	RunStarted       Action = "run_started" // a worker has it
	RunEnded         Action = "run_ended"
	RunCanceled      Action = "run_canceled" // somebody asked for it
	ExecStarted      Action = "exec_started"
	ExecEnded        Action = "exec_ended"
	AttachmentAdded  Action = "attachment_added"
	FileStored       Action = "file_stored" // by a caller of the API
	FileDeleted      Action = "file_deleted"
	ArchiveUnpacked  Action = "archive_unpacked"
	SessionDeleted   Action = "session_deleted"
	SessionForked    Action = "session_forked"
	SandboxRetired   Action = "sandbox_retired"
	SandboxPurged    Action = "sandbox_purged"    // with the user's files
	UserExpired      Action = "user_expired"      // SANDBOX_FILE_TTL: the same
	ApprovalAnswered Action = "approval_answered" // by a caller of the API

	// What follows a worker causes. Each of its users may have so many lines of it.
	ApprovalAsked Action = "approval_asked"
	ApprovalEnded Action = "approval_ended" // what the run went on with
	ToolDecided   Action = "tool_decided"
	Denied        Action = "denied"

	// LeftOut and Lost tell of lines that are not there.
	LeftOut Action = "left_out"
	Lost    Action = "lost"
)

// The decisions.
const (
	Allow = "allow"
	Deny  = "deny"
	// Failed is what would have been allowed, and did not come about.
	Failed = "failed"
)

// FromWorker is the source of what is a worker's word alone: it may have been taken
// over. A line without a source is the host's own knowledge.
const FromWorker = "worker"

// Event is one line. Whoever writes one leaves Time and Seq to the log.
type Event struct {
	Time   string `json:"time"` // RFC 3339, UTC, nanoseconds
	Seq    int64  `json:"seq"`  // from 1, of this daemon
	Action Action `json:"action"`
	Source string `json:"source,omitempty"`

	Caller    string        `json:"caller,omitempty"`
	UserID    string        `json:"user_id,omitempty"`
	RunID     string        `json:"run_id,omitempty"` // of an exec, its id
	SessionID string        `json:"session_id,omitempty"`
	Decision  string        `json:"decision,omitempty"`
	Code      protocol.Code `json:"code,omitempty"`
	Reason    string        `json:"reason,omitempty"`

	// Of a run or a command.
	Agent    string  `json:"agent,omitempty"`
	Status   string  `json:"status,omitempty"`
	ExitCode *int    `json:"exit_code,omitempty"`
	Signal   string  `json:"signal,omitempty"`
	Tokens   int64   `json:"tokens,omitempty"`
	CostUSD  float64 `json:"cost_usd,omitempty"`
	Seconds  float64 `json:"duration_s,omitempty"`

	// Of a tool: who let it be used or not, and by which rule or hook.
	Tool       string `json:"tool,omitempty"`
	CallID     string `json:"call_id,omitempty"`
	ApprovalID string `json:"approval_id,omitempty"`
	By         string `json:"by,omitempty"`

	// Of a denial, and the rule of a tool's decision.
	Layer    string `json:"layer,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Target   string `json:"target,omitempty"`
	Inferred bool   `json:"inferred,omitempty"`

	// Of files and sessions.
	File  string `json:"file,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
	Fork  string `json:"fork,omitempty"` // the new session

	// Of the daemon.
	Version   string            `json:"version,omitempty"`
	PID       int               `json:"pid,omitempty"`
	Isolation string            `json:"isolation,omitempty"` // strict or degraded
	Layers    map[string]string `json:"layers,omitempty"`    // their states

	// Of lines that are not there: which action's, and how many.
	Of    Action `json:"of,omitempty"`
	Lines int64  `json:"lines,omitempty"`

	// Content is kept only where the log was told to: see Options.Content.
	Content string `json:"content,omitempty"`
}

const (
	// maxTextBytes bounds each text that others have a say in, maxContentBytes what
	// is kept of a message, a command or an input.
	maxTextBytes    = 1 << 10
	maxContentBytes = 4 << 10
	// timeForm is RFC 3339 with every line's time of one length.
	timeForm = "2006-01-02T15:04:05.000000000Z07:00"
)

// encode makes the line, its end included.
func (e *Event) encode(now time.Time, seq int64) ([]byte, error) {
	e.Time, e.Seq = now.UTC().Format(timeForm), seq
	for _, text := range []*string{
		&e.Caller, &e.UserID, &e.RunID, &e.SessionID, &e.Reason, &e.Agent, &e.Status, &e.Signal, &e.Tool, &e.CallID,
		&e.ApprovalID, &e.By, &e.Layer, &e.Rule, &e.Target, &e.File, &e.Fork,
	} {
		*text = cut(*text, maxTextBytes)
	}
	e.Content = cut(e.Content, maxContentBytes)
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return nil, fmt.Errorf("encode audit line: %w", err)
	}
	return escape(b.Bytes()), nil
}

// cut keeps the first n bytes of a text, whole characters, and says that it did.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}

// escape writes what does not print as \u sequences. JSON itself leaves C1 controls
// and the marks that turn text around as they are, and a log is read on a terminal.
// Between a line's strings there is only ASCII, so this changes none of its meaning.
func escape(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		switch {
		case r == '\n' || r != 0x7f && r < utf8.RuneSelf || unicode.IsPrint(r):
			out = append(out, line[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		line = line[size:]
	}
	return out
}
