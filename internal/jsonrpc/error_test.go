package jsonrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

func TestErrorsCrossTheWireAsCodes(t *testing.T) {
	internal := &jsonrpc.Error{Code: protocol.RPCInternalError, Message: "internal error"}
	for _, tt := range []struct {
		name string
		sent error
		want error
	}{
		{
			"coded, its cause stays behind",
			fmt.Errorf("execute: %w", &protocol.Error{Code: protocol.CodeAgentError, Message: "model refused", Err: errors.New("secret")}),
			&protocol.Error{Code: protocol.CodeAgentError, Message: "model refused"},
		},
		{
			"unknown code",
			&protocol.Error{Code: "made_up", Message: "m"},
			&jsonrpc.Error{Code: protocol.RPCCarrelError, Message: "m", Data: json.RawMessage(`{"code":"made_up"}`)},
		},
		{
			"wire error",
			&jsonrpc.Error{Code: -5, Message: "m", Data: json.RawMessage(`[1]`)},
			&jsonrpc.Error{Code: -5, Message: "m", Data: json.RawMessage(`[1]`)},
		},
		{"unknown method", fmt.Errorf("x: %w", jsonrpc.ErrMethodNotFound), jsonrpc.ErrMethodNotFound},
		{"any other, its text stays behind", errors.New("/etc/secret"), internal},
		{"wire error that does not encode", &jsonrpc.Error{Code: 1, Data: json.RawMessage("{")}, internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := connect(t.Context(), handler{}, onRequest(func(context.Context, string, json.RawMessage) (any, error) {
				return nil, tt.sent
			}), jsonrpc.Options{})
			err := p.host.Call(t.Context(), "m", nil, nil)
			if diff := cmp.Diff(tt.want, err); diff != "" {
				t.Errorf("error of Call (-want +got):\n%s", diff)
			}
			p.hangUp(t)
		})
	}
}

func TestResultThatDoesNotEncodeIsAnsweredAsAnError(t *testing.T) {
	p := connect(t.Context(), handler{}, onRequest(func(context.Context, string, json.RawMessage) (any, error) {
		return math.NaN(), nil
	}), jsonrpc.Options{})
	err := p.host.Call(t.Context(), "m", nil, nil)
	if !errors.Is(err, &jsonrpc.Error{Code: protocol.RPCInternalError}) {
		t.Errorf("Call: %v, want an internal error", err)
	}
	p.hangUp(t)
}

func TestUnknownMethodIsFoundByErrorsIs(t *testing.T) {
	p := connect(t.Context(), handler{}, handler{}, jsonrpc.Options{})
	if err := p.host.Call(t.Context(), "nope", nil, nil); !errors.Is(err, jsonrpc.ErrMethodNotFound) {
		t.Errorf("Call: %v, want ErrMethodNotFound", err)
	}
	p.hangUp(t)
}

func TestErrorOfNotifyEndsTheConnection(t *testing.T) {
	own := errors.New("sequence has a gap")
	for _, tt := range []struct {
		name   string
		err    error
		blamed bool
	}{
		{"plain: the peer is blamed", own, true},
		{"coded: the code tells", &protocol.Error{Code: protocol.CodeInternal, Message: "disk full", Err: own}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := connectRaw(t.Context(), handler{notify: func(context.Context, string, json.RawMessage) error {
				return tt.err
			}}, jsonrpc.Options{})
			r.send(`{"jsonrpc":"2.0","method":"event"}` + "\n")
			err := r.wait()
			if !errors.Is(err, own) || errors.Is(err, jsonrpc.ErrProtocol) != tt.blamed {
				t.Errorf("Run: %v; want the handler's error, blaming the peer: %v", err, tt.blamed)
			}
		})
	}
}
