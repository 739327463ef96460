package httpapi

// What the document says in words.
const (
	aboutAPI = `JSON in and out, UTF-8; streams are server-sent events. Errors are problem documents
(RFC 9457) with a ` + "`code`" + `; a path or method that is not below answers 404 or 405 so.
Every GET answers HEAD as well. A body with a member that its schema does not name is
refused, and so is a query parameter; an answer may grow new members.

A frame of a stream is ` + "`id: <seq>`, `event: <TYPE>`, `data: <JSON>`" + `: ` + "`x-sse-events`" + ` has the
schema of each event's data. ` + "`x-access`" + ` says who may call an operation, ` + "`x-codes`" + ` with which
codes it may refuse.`

	aboutKeys = `An API key that is in force. A daemon on loopback without a file of keys asks for none.`

	aboutExecute = `The run is stored before anything is answered, and goes on whatever becomes of the caller.
What it can be refused for is refused before it starts; from then on every answer has its Location.`
)

func tags() []docTag {
	return []docTag{
		{"runs", "A message, what the agent makes of it, and its record."},
		{"sandboxes", "Users' workers, and commands in them."},
		{"files", "Users' workspaces, and attachments for runs."},
		{"sessions", "What agents remember of conversations."},
		{"daemon", "The daemon itself."},
	}
}

func executeExamples() map[string]docExample {
	return map[string]docExample{
		"script": {"A script, for the shell agent", map[string]any{"user_id": "ana", "message": "id; pwd; ls -la /"}},
		"model": {"A message of a session, for a model", map[string]any{
			"user_id": "ana", "session_id": "plans", "message": "What is in this file?",
			"attachments": []any{map[string]any{"id": "file_01M86G4TZRX5GR486M4H3BK30M"}},
			"config":      map[string]any{"agent": "claude", "max_turns": 20, "timeout_s": 120},
		}},
	}
}

func execExamples() map[string]docExample {
	return map[string]docExample{
		"list": {"A program and its arguments", map[string]any{"command": []any{"wc", "-l", "plan.csv"}}},
		"text": {"A text for the shell", map[string]any{"command": "sort | uniq -c", "stdin": "b\na\nb\n", "cwd": "reports", "timeout_s": 10}},
	}
}
