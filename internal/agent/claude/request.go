package claude

import (
	"encoding/json"
	"slices"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"carrel/internal/agent/session"
	"carrel/internal/tool"
)

// surroundings is the first part of every system prompt: what is so in a sandbox,
// whoever the caller wants the model to be.
const surroundings = `You work in a sandbox of one user. The user's files are in /workspace, which is also the tools' working directory; they stay there from one session to the next. /tmp is private and goes away. There is no network. A tool that is not allowed something says so in its result: do not try to get around it, say what you could not do.`

// persona is the second part where a caller gives none.
const persona = `You are a careful, capable assistant. Use the tools to find out what is so instead of guessing, and check what you have done. Answer in the user's language, briefly, and name the files you made or changed.`

// cacheMark asks the API to cache the request up to the block that has it. A
// request may have four. Ours, in the order of the prompt: the end of the tools,
// the end of the system prompt, and the ends of the last two messages of the
// user, of which the first is what the last request was cached up to.
const cacheMark = `{"type":"ephemeral"}`

// wireMessage and wireTool are what the API calls them. They go past the SDK's
// types, so that a block it does not know comes back to the API as it came.
type wireMessage struct {
	Role    session.Role      `json:"role"`
	Content []json.RawMessage `json:"content"`
}

type wireTool struct {
	Type         string          `json:"type,omitempty"`
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	InputSchema  json.RawMessage `json:"input_schema,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`
}

// params makes the request that asks for the next answer.
func (r *run) params(conversation []session.Message) anthropic.MessageNewParams {
	p := anthropic.MessageNewParams{
		Model:     r.model(),
		MaxTokens: r.maxTokens(),
		System: []anthropic.TextBlockParam{
			{Text: surroundings},
			{Text: r.system(), CacheControl: anthropic.NewCacheControlEphemeralParam()},
		},
		Tools: tools(r.definitions),
	}
	marked := marks(conversation)
	for i, m := range conversation {
		content := r.resolve(m.Content)
		if marked[i] {
			content[len(content)-1] = withMark(content[len(content)-1])
		}
		p.Messages = append(p.Messages, param.Override[anthropic.MessageParam](wireMessage{Role: m.Role, Content: content}))
	}
	return p
}

func (r *run) system() string {
	if r.Config.System != "" {
		return r.Config.System
	}
	return persona
}

// conversation is all the model is to see: the session's, and this run's.
func (r *run) conversation() []session.Message {
	return slices.Concat(r.session.Messages(), r.pending)
}

func tools(definitions []tool.Definition) []anthropic.ToolUnionParam {
	var all []anthropic.ToolUnionParam
	for i, d := range definitions {
		w := wireTool{Type: d.Builtin, Name: d.Name, Description: d.Description, InputSchema: d.InputSchema}
		if i == len(definitions)-1 {
			w.CacheControl = json.RawMessage(cacheMark)
		}
		all = append(all, param.Override[anthropic.ToolUnionParam](w))
	}
	return all
}

// marks names the messages to be cached up to: the user's last two.
func marks(conversation []session.Message) map[int]bool {
	marked := make(map[int]bool)
	for i := len(conversation) - 1; i >= 0 && len(marked) < 2; i-- {
		if conversation[i].Role == session.User {
			marked[i] = true
		}
	}
	return marked
}

// withMark gives a block of the user's, which may always have one, the mark.
func withMark(block json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(block, &fields) != nil || fields == nil {
		return block
	}
	fields["cache_control"] = json.RawMessage(cacheMark)
	return session.Encode(fields)
}
