package jsonrpc

import (
	"encoding/json"
	"errors"
	"fmt"

	"carrel/protocol"
)

var (
	// ErrClosed is in every error that a Call or Notify returns because the
	// connection has ended. What ended it is in the same error's chain.
	ErrClosed = errors.New("connection closed")

	// ErrProtocol is in every error that blames the peer: it sent something that
	// JSON-RPC or the limits of the connection do not allow. The rest of the
	// error's text says what.
	ErrProtocol = errors.New("protocol violation")

	// ErrMethodNotFound is what Handler.Request returns for a method it does not
	// know. errors.Is finds it in the error of the peer's Call as well.
	ErrMethodNotFound error = &Error{Code: protocol.RPCMethodNotFound, Message: "method not found"}
)

// Error is an error object as it stands on the wire (JSON-RPC 2.0, section 5.1).
type Error struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

func (e *Error) Error() string { return fmt.Sprintf("%s (JSON-RPC error %d)", e.Message, e.Code) }

// Is compares the code alone: another implementation words its message its own way.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// violationf makes an error that is [ErrProtocol].
func violationf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// wireError turns what a handler returned into what the peer may see. The text
// of an unknown error stays here: it may name paths or hosts of this side.
func wireError(err error) *Error {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		data, err := json.Marshal(protocol.RPCErrorData{Code: e.Code})
		if err == nil {
			return &Error{Code: protocol.RPCCarrelError, Message: e.Message, Data: data}
		}
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: protocol.RPCInternalError, Message: "internal error"}
}

// peerError turns the error object of a response into the error that Call
// returns. A malformed object is a violation, told by the second result.
func peerError(raw json.RawMessage) (reply, violation error) {
	var wire struct {
		Code    *int            `json:"code"`
		Message *string         `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return nil, violationf("error object of a response: %w", err)
	}
	if wire.Code == nil || wire.Message == nil {
		return nil, violationf("error object of a response lacks its code or message")
	}
	var data protocol.RPCErrorData
	// Data of another shape is no fault: it is then kept as it is.
	if json.Unmarshal(wire.Data, &data) == nil && data.Code.Known() {
		return &protocol.Error{Code: data.Code, Message: *wire.Message}, nil
	}
	return &Error{Code: *wire.Code, Message: *wire.Message, Data: wire.Data}, nil
}
