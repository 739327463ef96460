package httpapi

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	"carrel/internal/agui"
	"carrel/protocol"
)

// schemas are the document's: one for each type of package protocol that crosses HTTP,
// by reflection, with its comments.
type schemas struct {
	reflector jsonschema.Reflector
	named     map[string]*jsonschema.Schema
	constants map[string][]constant // by type
}

// constant is one of a type that is a string.
type constant struct{ name, value, comment string }

// enumWords is where generators look for what the values of an enumeration mean.
const enumWords = "x-enum-descriptions"

const schemaPath = "#/components/schemas/"

func newSchemas(t *testing.T) *schemas {
	t.Helper()
	s := &schemas{named: map[string]*jsonschema.Schema{}, constants: constantsOf(t, "../../protocol")}
	s.reflector = jsonschema.Reflector{
		Anonymous:                 true,
		AllowAdditionalProperties: true,
		Mapper:                    s.special,
		Namer:                     func(t reflect.Type) string { return schemaName(t) },
	}
	t.Chdir("../..") // the library makes import paths of the paths it walks
	for _, dir := range []string{"./protocol", "./internal/httpapi", "./internal/agui"} {
		if err := s.reflector.AddGoComments("carrel", dir, jsonschema.WithFullComment()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func schemaName(t reflect.Type) string {
	if t == reflect.TypeFor[healthAnswer]() {
		return "Health"
	}
	if t == reflect.TypeFor[agui.Event]() {
		return "AGUIFrame" // the page of the API tells of our own events as such
	}
	if t.PkgPath() == "carrel/internal/agui" {
		return "AGUI" + t.Name()
	}
	return t.Name()
}

// special makes the schemas of types whose JSON is not what their fields say.
func (s *schemas) special(t reflect.Type) *jsonschema.Schema {
	switch {
	case t == reflect.TypeFor[protocol.Command]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "array", Items: &jsonschema.Schema{Type: "string"}, MinItems: new(uint64(1)), Description: "A program and its arguments."},
			{Type: "string", MinLength: new(uint64(1)), Description: "A text for /bin/sh."},
		}}
	case t.Kind() == reflect.String && s.constants[t.Name()] != nil:
		if t != reflect.TypeFor[protocol.EventType]() {
			s.enumeration(t)
		}
		return &jsonschema.Schema{Ref: schemaPath + t.Name()}
	}
	return nil
}

// enumeration adds the schema of a type of which there are constants alone.
func (s *schemas) enumeration(t reflect.Type) {
	about := []string{s.reflector.CommentMap[t.PkgPath()+"."+t.Name()], ""}
	e := &jsonschema.Schema{Type: "string"}
	var words []string
	for _, c := range s.constants[t.Name()] {
		e.Enum, words = append(e.Enum, c.value), append(words, c.comment)
		if c.comment != "" {
			about = append(about, "- `"+c.value+"`"+status(t, c)+": "+c.comment)
		}
	}
	e.Description = strings.TrimSpace(strings.Join(about, "\n"))
	if len(about) > 2 {
		e.Extras = map[string]any{enumWords: words} // as generators call it
	}
	s.named[t.Name()] = e
}

// status is the HTTP status of a code, for its line.
func status(t reflect.Type, c constant) string {
	if t != reflect.TypeFor[protocol.Code]() {
		return ""
	}
	return fmt.Sprintf(" (%d)", protocol.Code(c.value).HTTPStatus())
}

// answer is the schema of what is answered, by reference.
func (s *schemas) answer(v any) *jsonschema.Schema {
	return s.add(v, func(*jsonschema.Schema) {})
}

// request is the schema of a body. It is closed: what it does not name is refused.
func (s *schemas) request(v any) *jsonschema.Schema {
	return s.add(v, func(one *jsonschema.Schema) { one.AdditionalProperties = jsonschema.FalseSchema })
}

func (s *schemas) add(v any, each func(*jsonschema.Schema)) *jsonschema.Schema {
	root := s.reflector.Reflect(v)
	for name, one := range root.Definitions {
		if s.named[name] == nil {
			each(one)
			s.named[name] = one
		}
	}
	return &jsonschema.Schema{Ref: schemaPath + strings.TrimPrefix(root.Ref, "#/$defs/")}
}

// events adds a schema for each event of a run, which is an [protocol.Event] with data
// of one type, and one for all. The constant's comment names the type.
func (s *schemas) events(t *testing.T) (all *jsonschema.Schema, byName map[string]*jsonschema.Schema) {
	t.Helper()
	byName, mapping := map[string]*jsonschema.Schema{}, map[string]string{}
	all = &jsonschema.Schema{Description: "What a run tells, by its `type`. RUN_STARTED is the first; exactly one of RUN_FINISHED and RUN_ERROR is the last."}
	for _, c := range s.constants["EventType"] {
		data := s.eventData(t, c)
		if !strings.HasPrefix(c.name, "Event") {
			byName[c.value] = data // a bare one, of exec
			continue
		}
		one := s.reflector.Reflect(protocol.Event{}).Definitions["Event"]
		one.Description = "The event " + c.value + " of a run."
		one.Properties.Set("type", &jsonschema.Schema{Type: "string", Const: c.value})
		one.Properties.Set("data", data)
		seq, _ := one.Properties.Get("seq")
		seq.Minimum = "1"
		name := strings.TrimPrefix(c.name, "Event") + "Event"
		s.named[name] = one
		byName[c.value] = &jsonschema.Schema{Ref: schemaPath + name}
		mapping[c.value] = schemaPath + name
		all.OneOf = append(all.OneOf, byName[c.value])
	}
	all.Extras = map[string]any{"discriminator": map[string]any{"propertyName": "type", "mapping": mapping}}
	s.named["RunEvent"] = all
	return &jsonschema.Schema{Ref: schemaPath + "RunEvent"}, byName
}

func (s *schemas) eventData(t *testing.T, c constant) *jsonschema.Schema {
	t.Helper()
	name, _, _ := strings.Cut(c.comment, ",")
	for _, v := range []any{
		protocol.RunStarted{},
		protocol.TextDelta{},
		protocol.ThinkingDelta{},
		protocol.ToolCallStart{},
		protocol.ToolCallArgs{},
		protocol.ToolOutput{},
		protocol.ToolCallResult{},
		protocol.ApprovalRequested{},
		protocol.ApprovalResolved{},
		protocol.Usage{},
		protocol.Result{},
		protocol.RunError{},
		protocol.ExecOutput{},
		protocol.ExecResult{},
	} {
		if reflect.TypeOf(v).Name() == name {
			return s.answer(v)
		}
	}
	t.Fatalf("protocol.%s: its comment %q must begin with the type of its data, and eventData must know that type", c.name, c.comment)
	return nil
}

// refinements are what a Go type does not say, by its field: bounds, which validate.go
// and protocol have as constants, and the values of plain strings.
func refinements() map[string]func(*jsonschema.Schema) {
	length := func(least, most uint64) func(*jsonschema.Schema) {
		return func(p *jsonschema.Schema) { p.MinLength, p.MaxLength = &least, &most }
	}
	atMost := func(most int) func(*jsonschema.Schema) {
		return func(p *jsonschema.Schema) { p.Minimum, p.Maximum = "0", json.Number(strconv.Itoa(most)) }
	}
	oneOf := func(values ...string) func(*jsonschema.Schema) {
		return func(p *jsonschema.Schema) {
			for _, v := range values {
				p.Enum = append(p.Enum, v)
			}
		}
	}
	session := func(p *jsonschema.Schema) {
		length(1, protocol.MaxSessionIDBytes)(p)
		p.Pattern = sessionPattern
	}
	object := func(p *jsonschema.Schema) { p.Items = &jsonschema.Schema{Type: "object"} }
	return map[string]func(*jsonschema.Schema){
		"ExecuteRequest.user_id":     length(1, protocol.MaxUserIDBytes),
		"ExecuteRequest.message":     length(1, protocol.MaxMessageBytes),
		"ExecuteRequest.session_id":  session,
		"ExecuteRequest.attachments": func(p *jsonschema.Schema) { p.MaxItems = new(uint64(maxAttachments)) },
		"ForkRequest.session_id":     session,
		"Attachment.id":              length(1, maxNameBytes),
		"Attachment.type":            length(0, maxMediaTypeBytes),
		"RunConfig.agent":            length(0, maxNameBytes),
		"RunConfig.model":            length(0, maxNameBytes),
		"RunConfig.system":           length(0, maxSystemBytes),
		"RunConfig.max_tokens":       atMost(maxTokens),
		"RunConfig.max_turns":        atMost(maxTurns),
		"RunConfig.timeout_s":        atMost(maxTimeoutSeconds),
		"RunConfig.permission_mode":  oneOf(append(permissionModes(), "")...),
		"ExecRequest.stdin":          length(0, protocol.MaxMessageBytes),
		"ExecRequest.timeout_s":      atMost(maxTimeoutSeconds),
		"ApprovalDecision.decision":  oneOf(protocol.Allow, protocol.Deny),
		"ApprovalDecision.reason":    length(0, maxReasonBytes),
		"ApprovalResolved.decision":  oneOf(protocol.Allow, protocol.Deny),
		"TextDelta.stream":           oneOf("stdout", "stderr"),
		"ToolOutput.stream":          oneOf("stdout", "stderr"),
		"IsolationReport.mode":       oneOf("strict", "degraded"),
		"IsolationReport.state":      oneOf("strict", "degraded"),
		"Sandbox.isolation":          oneOf("strict", "degraded"),
		"Problem.type":               func(p *jsonschema.Schema) { p.Const = "about:blank" },
		"Health.status":              oneOf("ok", "ready"),
		"AGUIFrame.type":             oneOf(aguiEventTypes()...),
		"AGUIOutcome.type":           oneOf(agui.Success, agui.Interrupted, agui.Cancelled),
		"Transcript.entries":         object,
		"AttachmentInfo.sha256":      func(p *jsonschema.Schema) { p.Pattern = "^[0-9a-f]{64}$" },
		"FileInfo.mode":              func(p *jsonschema.Schema) { p.Pattern = "^[0-7]+$" },
		"PoolFigures.by_state":       func(p *jsonschema.Schema) { p.PropertyNames = &jsonschema.Schema{Ref: schemaPath + "SandboxState"} },
	}
}

// refine adds the refinements, and makes prose of the comments.
func (s *schemas) refine(t *testing.T) {
	t.Helper()
	for field, refine := range refinements() {
		name, member, _ := strings.Cut(field, ".")
		if s.named[name] == nil {
			t.Fatalf("refine: there is no schema %s", name)
		}
		p, ok := s.named[name].Properties.Get(member)
		if !ok {
			t.Fatalf("refine: there is no field %s", field)
		}
		refine(p)
	}
	for _, one := range s.named {
		one.Description = prose(one.Description)
		if one.Properties == nil {
			continue
		}
		for p := one.Properties.Oldest(); p != nil; p = p.Next() {
			p.Value.Description = prose(p.Value.Description)
		}
	}
}

const sessionPattern = "^[A-Za-z0-9._-]+$"

var goLink = regexp.MustCompile(`\[([A-Z][A-Za-z.]*)\]`)

// prose makes of a Go comment a text for people who do not read Go: one line a
// paragraph, links as plain names.
func prose(comment string) string {
	var paragraphs []string
	for p := range strings.SplitSeq(comment, "\n\n") {
		if !strings.HasPrefix(p, "- ") {
			p = strings.ReplaceAll(p, "\n", " ")
		}
		paragraphs = append(paragraphs, strings.TrimSpace(p))
	}
	return goLink.ReplaceAllString(strings.Join(paragraphs, "\n\n"), "$1")
}

// constantsOf reads the constants of a package that are typed strings, in the order of
// its files.
func constantsOf(t *testing.T, dir string) map[string][]constant {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the source of package protocol: %q, %v", files, err)
	}
	found := map[string][]constant{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 {
				return true
			}
			kind, named := spec.Type.(*ast.Ident)
			literal, isLiteral := spec.Values[0].(*ast.BasicLit)
			if !named || !isLiteral || literal.Kind != token.STRING {
				return true
			}
			value, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(fmt.Errorf("%s: %w", file, err))
			}
			comment := strings.TrimSpace(spec.Comment.Text())
			found[kind.Name] = append(found[kind.Name], constant{spec.Names[0].Name, value, comment})
			return true
		})
	}
	return found
}
