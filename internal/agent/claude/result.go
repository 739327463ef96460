package claude

import (
	"encoding/json"
	"fmt"
	"time"

	"carrel/protocol"
)

// A result is one line, of at most protocol.MaxLineBytes. Its content may become
// six times as long in JSON, 1.5 MiB; the calls get as much as that.
const (
	maxContentBytes  = 256 << 10
	maxRecordBytes   = 3 << 19
	maxRecordedBytes = 16 << 10 // of one input, and of one result
)

// record is the calls of a run, for its result.
type record struct {
	calls   []protocol.ToolCall
	bytes   int // as JSON
	leftOut int
}

// add keeps a call, shortened; when there is no more room, it counts it.
func (r *record) add(c protocol.ToolCall) {
	if len(c.Input) > maxRecordedBytes {
		c.Input = fmt.Appendf(nil, `{"left_out_bytes":%d}`, len(c.Input))
	}
	c.Result = shorten(c.Result, maxRecordedBytes)
	data, err := json.Marshal(c)
	if err != nil || r.bytes+len(data) > maxRecordBytes {
		r.leftOut++
		return
	}
	r.bytes += len(data)
	r.calls = append(r.calls, c)
}

func (r *run) result(stop string, took time.Duration) *protocol.Result {
	result := &protocol.Result{
		RunID:            r.ID,
		SessionID:        r.SessionID,
		Status:           protocol.StatusFinished,
		Content:          r.content.String(),
		ToolCalls:        r.calls.calls,
		ToolCallsLeftOut: r.calls.leftOut,
		TokensUsed:       total(r.usage),
		Usage:            r.usage,
		Duration:         took.Seconds(),
		StopReason:       stop,
		Truncated:        r.content.Truncated(),
	}
	if result.ToolCalls == nil {
		result.ToolCalls = []protocol.ToolCall{}
	}
	if result.Truncated {
		result.ContentBytes = r.content.Size()
	}
	return result
}
