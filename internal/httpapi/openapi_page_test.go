package httpapi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"carrel/protocol"
)

// page writes the document for people: docs/api.md.
type page struct {
	strings.Builder

	document *docDocument
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(&p.Builder, format+"\n", args...) }

func makePage(document *docDocument) []byte {
	p := &page{document: document}
	p.line("<!-- made by CARREL_UPDATE=1 go test ./internal/httpapi -run OpenAPI -->")
	p.line("# HTTP API\n")
	p.line("%s\n", document.Info.Description)
	p.line("A running daemon serves all of this in OpenAPI %s at `/openapi.json`, for generators of", document.OpenAPI)
	p.line("clients; this page is made of the same document.\n")
	p.line("Every route may answer %s; each that needs a key %s besides. What stands at a route comes on top.",
		names(everywhere()), names(signedIn()))
	for _, tag := range document.Tags {
		p.line("\n## Routes: %s\n\n%s", tag.Name, tag.Description)
		for _, path := range document.Paths {
			for _, op := range path.operations {
				if op.Tags[0] == tag.Name {
					p.operation(path.path, op)
				}
			}
		}
	}
	p.events()
	p.codes()
	p.types()
	return []byte(p.String())
}

func (p *page) operation(path string, op *docOperation) {
	p.line("\n### %s `%s`\n", strings.ToUpper(op.method), path)
	p.line("%s\n", strings.TrimSpace(op.Summary+". "+strings.ReplaceAll(op.Description, "\n", " ")))
	p.line("- who: %s", op.Access)
	for _, given := range op.Parameters {
		one := given
		if given.Ref != "" {
			one = p.document.Components.Parameters[last(given.Ref)]
		}
		if one.In != "path" || one.ManySegments {
			p.line("- %s `%s`: %s%s", one.In, one.Name, detail(one.Schema), one.Description)
		}
	}
	if op.RequestBody != nil {
		p.line("- body: %s", contents(op.RequestBody.Content))
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		if r := op.Responses[status]; r.Ref == "" {
			p.line("- %s: %s", status, strings.TrimSpace(contents(r.Content)+headersOf(r)+" – "+r.Description))
		}
	}
	own := slices.DeleteFunc(slices.Clone(op.Codes), func(code protocol.Code) bool {
		return slices.Contains(append(everywhere(), signedIn()...), code)
	})
	var bare []string
	for _, status := range slices.Sorted(maps.Keys(refusals())) {
		if r := op.Responses[fmt.Sprint(status)]; r != nil && r.Ref != "" {
			bare = append(bare, fmt.Sprint(status))
		}
	}
	if refused := strings.Join(slices.DeleteFunc([]string{names(own), strings.Join(bare, ", ")}, func(s string) bool { return s == "" }), "; "); refused != "" {
		p.line("- errors: %s", refused)
	}
}

func names(codes []protocol.Code) string {
	var quoted []string
	for _, code := range codes {
		quoted = append(quoted, "`"+string(code)+"`")
	}
	return strings.Join(quoted, ", ")
}

// headersOf names the headers that are an answer's own.
func headersOf(r *docResponse) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		if name != "X-Request-Id" {
			names = append(names, "`"+name+"`")
		}
	}
	if names == nil {
		return ""
	}
	return ", with " + strings.Join(names, ", ")
}

// contents says what a body may be.
func contents(content map[string]docMedia) string {
	var kinds []string
	for _, media := range slices.Sorted(maps.Keys(content)) {
		what := "bytes"
		if content[media].Schema != nil {
			what = kind(content[media].Schema)
		}
		if media != mediaJSON {
			what += " as `" + media + "`"
		}
		kinds = append(kinds, what)
	}
	return cmp.Or(strings.Join(kinds, ", or "), "nothing")
}

func (p *page) events() {
	p.line("\n## Events\n")
	p.line("Each frame of a run is an object `{run_id, seq, time, type, data}`; those of a streamed command are the")
	p.line("data alone, and have no id.\n")
	p.line("| event | data |\n|---|---|")
	for _, of := range p.document.Components.Schemas["RunEvent"].OneOf {
		one := p.document.Components.Schemas[last(of.Ref)]
		name, _ := one.Properties.Get("type")
		data, _ := one.Properties.Get("data")
		p.line("| `%s` | %s |", name.Const, kind(data))
	}
	for _, path := range p.document.Paths {
		for _, op := range path.operations {
			if op.OperationID != "exec" {
				continue
			}
			frames := op.Responses["200"].Content[mediaEvents].Events
			for _, name := range slices.Sorted(maps.Keys(frames)) {
				p.line("| `%s`, of a command | %s |", name, kind(frames[name]))
			}
		}
	}
}

func (p *page) codes() {
	p.line("\n## Errors\n")
	p.line("| code | status | meaning |\n|---|---|---|")
	schema := p.document.Components.Schemas["Code"]
	meanings, _ := schema.Extras[enumWords].([]string)
	for i, code := range schema.Enum {
		p.line("| `%s` | %d | %s |", code, protocol.Code(fmt.Sprint(code)).HTTPStatus(), meanings[i])
	}
	var others []string
	for _, status := range slices.Sorted(maps.Keys(refusals())) {
		others = append(others, fmt.Sprintf("%d (`%s`)", status, refusals()[status]))
	}
	p.line("\nStatuses that no code has for its own: %s.", strings.Join(others, ", "))
}

func (p *page) types() {
	p.line("\n## Types\n")
	p.line("A field with `?` may be left out.")
	for _, name := range slices.Sorted(maps.Keys(p.document.Components.Schemas)) {
		schema := p.document.Components.Schemas[name]
		if strings.HasSuffix(name, "Event") || name == "Code" {
			continue // above
		}
		p.line("\n### %s\n\n%s", name, schema.Description)
		if schema.Properties == nil {
			continue
		}
		p.line("\n| field | type | meaning |\n|---|---|---|")
		for f := schema.Properties.Oldest(); f != nil; f = f.Next() {
			optional := "?"
			if slices.Contains(schema.Required, f.Key) {
				optional = ""
			}
			p.line("| `%s`%s | %s | %s |", f.Key, optional, cell(kind(f.Value)), cell(f.Value.Description))
		}
	}
}

func cell(text string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(text) }

func last(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// kind says what a schema takes.
func kind(s *jsonschema.Schema) string {
	switch {
	case s.Ref == schemaPath+"Code" || strings.HasSuffix(s.Ref, "/Code"):
		return "[code](#errors)"
	case strings.HasSuffix(s.Ref, "/RunEvent"), strings.HasSuffix(s.Ref, "/ExecEvent"):
		return "[events](#events)"
	case s.Ref != "":
		return "[" + last(s.Ref) + "](#" + strings.ToLower(last(s.Ref)) + ")"
	case s.OneOf != nil:
		var kinds []string
		for _, one := range s.OneOf {
			kinds = append(kinds, kind(one))
		}
		return strings.Join(kinds, " or ")
	case s.Type == "array":
		return "list of " + kind(s.Items)
	case s.Type == "object" && s.Properties == nil && s.AdditionalProperties != nil:
		return "map of " + kind(s.AdditionalProperties)
	case s.Enum != nil:
		var values []string
		for _, v := range s.Enum {
			values = append(values, fmt.Sprintf("`%v`", v))
		}
		return strings.Join(values, ", ")
	case s.Const != nil:
		return fmt.Sprintf("`%v`", s.Const)
	case s.Format != "":
		return s.Format
	}
	return cmp.Or(s.Type, "any") + bounds(s)
}

// detail is kind for a line of text.
func detail(s *jsonschema.Schema) string {
	if what := kind(s); what != "string" {
		return what + ". "
	}
	return ""
}

func bounds(s *jsonschema.Schema) string {
	text := ""
	switch {
	case s.Minimum != "" && s.Maximum != "":
		text = fmt.Sprintf(", %s to %s", s.Minimum, s.Maximum)
	case s.Minimum != "":
		text = fmt.Sprintf(", %s or more", s.Minimum)
	case s.MaxLength != nil:
		text = fmt.Sprintf(", at most %d characters", *s.MaxLength)
	}
	if s.Default != nil {
		text += fmt.Sprintf(", %v if left out", s.Default)
	}
	return text
}
