package protocol

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The comment behind each constant names the type of its data; what is
// documented there is what Decode gives, and an event that it does not know fails here.
func TestEveryEventIsDecodedAsTheTypeThatItsCommentNames(t *testing.T) {
	kinds := eventTypes(t)
	if len(kinds) < 12 {
		t.Errorf("%d types of events were found", len(kinds))
	}
	if listed := EventTypes(); len(listed) != len(kinds) {
		t.Errorf("%d types of events are listed, and there are %d", len(listed), len(kinds))
	}
	for kind, want := range kinds {
		if !slices.Contains(EventTypes(), kind) {
			t.Errorf("%s is not listed", kind)
		}
		data, err := Event{Type: kind, Data: json.RawMessage(`{}`)}.Decode()
		if err != nil || reflect.TypeOf(data).Name() != want {
			t.Errorf("%s is decoded as %T (%v), and its comment says %q", kind, data, err, want)
		}
	}
}

// eventTypes reads the constants Event… of this package's source: value and comment.
func eventTypes(t *testing.T) map[EventType]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[EventType]string)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Event") {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				found[EventType(strings.Trim(literal.Value, `"`))] = strings.TrimSpace(spec.Comment.Text())
			}
			return false
		})
	}
	return found
}

func TestDecodeFillsTheType(t *testing.T) {
	data, err := Event{Type: EventRunError, Data: json.RawMessage(`{"code":"interrupted","message":"m"}`)}.Decode()
	want := RunError{Code: CodeInterrupted, Message: "m"}
	if err != nil || data != want {
		t.Fatalf("%+v, %v; want %+v", data, err, want)
	}
	if err := want.Err(); !errors.Is(err, CodeInterrupted) || err.Error() != "interrupted: m" {
		t.Errorf("as an error it is %v", err)
	}
}

func TestEventOfALaterDaemonComesThroughRaw(t *testing.T) {
	const text = `{"what":["nobody","knows"]}`
	data, err := Event{Type: "SOMETHING_NEW", Data: json.RawMessage(text)}.Decode()
	if raw, ok := data.(json.RawMessage); err != nil || !ok || string(raw) != text {
		t.Errorf("%T %s, %v", data, data, err)
	}
}

func TestDataOfAnotherShapeIsAnError(t *testing.T) {
	for _, text := range []string{"", `{`, `[]`, `{"text":1}`} {
		_, err := Event{Seq: 7, Type: EventTextDelta, Data: json.RawMessage(text)}.Decode()
		if err == nil || !strings.Contains(err.Error(), "event 7 (TEXT_DELTA)") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
