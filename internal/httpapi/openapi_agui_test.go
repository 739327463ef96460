package httpapi

import (
	"net/http"

	"github.com/invopop/jsonschema"

	"carrel/internal/agui"
	"carrel/protocol"
)

func aguiEventTypes() []string {
	return []string{
		agui.RunStarted, agui.RunFinished, agui.RunError, agui.TextMessageStart, agui.TextMessageContent, agui.TextMessageEnd,
		agui.ReasoningStart, agui.ReasoningMessageStart, agui.ReasoningMessageContent, agui.ReasoningMessageEnd, agui.ReasoningEnd,
		agui.ToolCallStart, agui.ToolCallArgs, agui.ToolCallEnd, agui.ToolCallResult, agui.MessagesSnapshot, agui.Custom, agui.Raw,
	}
}

func aguiOperations(s *schemas) map[string]operation {
	s.named["RunAgentInput"] = aguiInput()
	return map[string]operation{
		"POST /v1/ag-ui": {
			id: "runAGUI", tag: "runs",
			about:   "AG-UI 1.0 (docs.ag-ui.com): starts the run of the user's last message, shows it again where there is one, or answers what a run was interrupted for and goes on. Each frame of the stream is one event, `data` alone. docs/ag-ui.md has the rules.",
			headers: []string{"X-Carrel-User"},
			body: jsonBody(&jsonschema.Schema{Ref: schemaPath + "RunAgentInput"}, map[string]docExample{
				"message": {"A message", map[string]any{
					"threadId": "plans", "runId": "r-1", "messages": []any{map[string]any{"id": "m-1", "role": "user", "content": "Tidy up."}},
				}},
				"resume": {"An answer to an interrupt", map[string]any{
					"threadId": "plans", "runId": "r-2", "messages": []any{map[string]any{"id": "m-1", "role": "user", "content": "Tidy up."}},
					"resume": []any{map[string]any{"interruptId": "run_01M8.apr_01M8", "status": "resolved", "payload": map[string]any{"approved": true}}},
				}},
			}),
			answers: map[int]docResponse{
				http.StatusOK: answerOf("AG-UI's events, up to the run's end or an interrupt.",
					map[string]docMedia{mediaEvents: {Schema: s.answer(agui.Event{})}}, "Location"),
			},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound, protocol.CodeTooLarge},
			refuses: append(jsonRefusals(), http.StatusNotAcceptable),
		},
	}
}

// aguiInput is open, as AG-UI has it: members that it does not name are left alone.
func aguiInput() *jsonschema.Schema {
	text := func(about string, most uint64) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Description: about, MinLength: new(uint64(1)), MaxLength: &most}
	}
	open := func(required []string, members map[string]*jsonschema.Schema) *jsonschema.Schema {
		o := &jsonschema.Schema{Type: "object", Required: required, Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.TrueSchema}
		for _, name := range required {
			o.Properties.Set(name, members[name])
			delete(members, name)
		}
		for _, name := range []string{"content", "payload", "tools", "context", "resume", "forwardedProps", "carrel"} {
			if member := members[name]; member != nil {
				o.Properties.Set(name, member)
			}
		}
		return o
	}
	list := func(about string, items *jsonschema.Schema) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "array", Description: about, Items: items}
	}
	words := &jsonschema.Schema{Type: "string"}
	thread := text("The session's id.", protocol.MaxSessionIDBytes)
	thread.Pattern = sessionPattern
	config := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	config.Properties.Set("config", &jsonschema.Schema{Ref: schemaPath + "RunConfig"})
	input := open([]string{"threadId", "runId", "messages"}, map[string]*jsonschema.Schema{
		"threadId": thread,
		"runId":    text("The client's own id of this run.", 256),
		"messages": list("The conversation; its last message of the user is what is run.", open([]string{"id", "role"}, map[string]*jsonschema.Schema{
			"id": words, "role": words, "content": {Description: "A text, or parts."},
		})),
		"tools":          list("Without effect.", &jsonschema.Schema{}),
		"context":        list("Without effect.", &jsonschema.Schema{}),
		"forwardedProps": open(nil, map[string]*jsonschema.Schema{"carrel": config}),
		"resume": list("Answers to the interrupts that ended the thread's last run.", open([]string{"interruptId", "status"}, map[string]*jsonschema.Schema{
			"interruptId": words,
			"status":      {Type: "string", Enum: []any{"resolved", "cancelled"}},
			"payload":     {Description: "As the interrupt's responseSchema has it."},
		})),
	})
	input.Description = "AG-UI's RunAgentInput, as far as it has an effect."
	return input
}
