package httpapi

import (
	"slices"
	"strings"
	"unicode"

	"carrel/protocol"
)

// What one request may hold. Together they keep the JSON-RPC line that goes to
// the worker below protocol.MaxLineBytes (4 MiB) even if every byte is escaped
// as six: for execute (512 + 64 + 40) KiB · 6, for exec (512 + 128) KiB · 6.
const (
	maxSystemBytes      = 64 << 10
	maxAttachments      = 100
	maxNameBytes        = 128 // of an agent, a model, an attachment id
	maxMediaTypeBytes   = 255 // 127 "/" 127 (RFC 6838, section 4.2)
	maxCommandBytes     = 128 << 10
	maxTokens           = 10_000_000
	maxTurns            = 10_000
	maxTimeoutSeconds   = 24 * 60 * 60
	minTimeoutSeconds   = 0.001
	maxIdempotencyBytes = 255
	maxReasonBytes      = 4 << 10
)

func invalid(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeInvalidRequest, format, args...)
}

// checkExecute reports the first fault of the body of POST /v1/execute.
func checkExecute(req protocol.ExecuteRequest) error {
	if err := protocol.CheckUserID(req.UserID); err != nil {
		return err
	}
	if req.SessionID != "" {
		if err := protocol.CheckSessionID(req.SessionID); err != nil {
			return err
		}
	}
	if req.Message == "" {
		return invalid("message: must not be empty")
	}
	if err := checkSize("message", len(req.Message), protocol.MaxMessageBytes); err != nil {
		return err
	}
	if len(req.Attachments) > maxAttachments {
		return invalid("attachments: %d given, at most %d are allowed", len(req.Attachments), maxAttachments)
	}
	for i, at := range req.Attachments {
		if at.ID == "" || len(at.ID) > maxNameBytes || hasControl(at.ID) {
			return invalid("attachments[%d].id: must be 1 to %d bytes without control characters", i, maxNameBytes)
		}
		if len(at.Type) > maxMediaTypeBytes || hasControl(at.Type) {
			return invalid("attachments[%d].type: must be a media type of at most %d bytes", i, maxMediaTypeBytes)
		}
	}
	return checkRunConfig(req.Config)
}

func checkRunConfig(c protocol.RunConfig) error {
	for _, f := range []struct{ name, value string }{{"agent", c.Agent}, {"model", c.Model}} {
		if len(f.value) > maxNameBytes || hasControl(f.value) {
			return invalid("config.%s: must be at most %d bytes without control characters", f.name, maxNameBytes)
		}
	}
	if err := checkSize("config.system", len(c.System), maxSystemBytes); err != nil {
		return err
	}
	if c.MaxTokens < 0 || c.MaxTokens > maxTokens {
		return invalid("config.max_tokens: must be 1 to %d, or 0 for the default", maxTokens)
	}
	if c.MaxTurns < 0 || c.MaxTurns > maxTurns {
		return invalid("config.max_turns: must be 1 to %d, or 0 for the default", maxTurns)
	}
	if err := checkTimeout("config.timeout_s", c.TimeoutSeconds); err != nil {
		return err
	}
	if modes := permissionModes(); c.PermissionMode != "" && !slices.Contains(modes, c.PermissionMode) {
		return invalid("config.permission_mode: must be one of %s", strings.Join(modes, ", "))
	}
	return nil
}

func permissionModes() []string { return []string{"default", "accept_edits", "plan", "bypass"} }

// checkExec reports the first fault of the body of an exec.
func checkExec(req protocol.ExecRequest) error {
	if err := req.Command.Validate(); err != nil { // a body without a command
		return invalid("%s", err.Error())
	}
	if err := checkSize("stdin", len(req.Stdin), protocol.MaxMessageBytes); err != nil {
		return err
	}
	if strings.ContainsRune(req.Cwd, 0) {
		return invalid("cwd: must not contain NUL")
	}
	size := len(req.Cwd)
	for _, arg := range req.Command.Argv() {
		if strings.ContainsRune(arg, 0) {
			return invalid("command: must not contain NUL")
		}
		size += len(arg) + 1
	}
	for name, value := range req.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return invalid("env: %s: a name must not be empty nor contain '=', and neither name nor value NUL", quote(name))
		}
		size += len(name) + len(value) + 2
	}
	if err := checkSize("command, env and cwd together", size, maxCommandBytes); err != nil {
		return err
	}
	return checkTimeout("timeout_s", req.TimeoutSeconds)
}

// checkTimeout is written so that NaN fails it too.
func checkTimeout(field string, seconds float64) error {
	if seconds == 0 || seconds >= minTimeoutSeconds && seconds <= maxTimeoutSeconds {
		return nil
	}
	return invalid("%s: must be %g to %d seconds, or 0 for the default", field, minTimeoutSeconds, maxTimeoutSeconds)
}

func checkSize(what string, size, limit int) error {
	if size > limit {
		return protocol.Errorf(protocol.CodeTooLarge, "%s: %d bytes, at most %d are allowed", what, size, limit)
	}
	return nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
