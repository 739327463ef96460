package protocol

import (
	"encoding/json"
	"fmt"
)

// Decode gives an event's data as the Go type that belongs to its type, for a type
// switch. It is one of these, never a pointer:
//
//	RunStarted         RUN_STARTED
//	TextDelta          TEXT_DELTA
//	ThinkingDelta      THINKING_DELTA
//	ToolCallStart      TOOL_CALL_START
//	ToolCallArgs       TOOL_CALL_ARGS
//	ToolOutput         TOOL_OUTPUT
//	ToolCallResult     TOOL_CALL_RESULT
//	ApprovalRequested  APPROVAL_REQUESTED
//	ApprovalResolved   APPROVAL_RESOLVED
//	Usage              USAGE
//	Result             RUN_FINISHED
//	RunError           RUN_ERROR
//	json.RawMessage    any other: a later daemon's, to be passed over
//
// Data of another shape than its type has is an error.
func (e Event) Decode() (any, error) {
	switch e.Type {
	case EventRunStarted:
		return decode[RunStarted](e)
	case EventTextDelta:
		return decode[TextDelta](e)
	case EventThinkingDelta:
		return decode[ThinkingDelta](e)
	case EventToolCallStart:
		return decode[ToolCallStart](e)
	case EventToolCallArgs:
		return decode[ToolCallArgs](e)
	case EventToolOutput:
		return decode[ToolOutput](e)
	case EventToolCallResult:
		return decode[ToolCallResult](e)
	case EventApprovalRequested:
		return decode[ApprovalRequested](e)
	case EventApprovalResolved:
		return decode[ApprovalResolved](e)
	case EventUsage:
		return decode[Usage](e)
	case EventRunFinished:
		return decode[Result](e)
	case EventRunError:
		return decode[RunError](e)
	default:
		return e.Data, nil
	}
}

func decode[T any](e Event) (any, error) {
	var data T
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return nil, fmt.Errorf("decode event %d (%s): %w", e.Seq, e.Type, err)
	}
	return data, nil
}
