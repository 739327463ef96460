package openapitest

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// node is an object of a JSON document.
type node = map[string]any

// Document is an OpenAPI document to check answers with. It is safe for concurrent use.
type Document struct {
	root       node
	operations []operation

	mu       sync.Mutex // guards all below
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
	seen     Seen
}

// operation is one of the document.
type operation struct {
	node

	id      string
	method  string   // upper case
	path    []string // segments of its template
	pointer string   // where it is in the document
}

// Seen counts what was answered and was as documented.
type Seen struct {
	Answers map[string]int // by "operationId status media-type"
	Codes   map[string]int
	Events  map[string]int // by the name of the SSE frame
}

// New reads a document.
func New(document []byte) (*Document, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	root, ok := value.(node)
	if !ok {
		return nil, errors.New("document: is no object")
	}
	d := &Document{
		root:     root,
		compiler: jsonschema.NewCompiler(),
		schemas:  make(map[string]*jsonschema.Schema),
		seen:     Seen{Answers: make(map[string]int), Codes: make(map[string]int), Events: make(map[string]int)},
	}
	closeObjects(root)
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(resource, root); err != nil {
		return nil, fmt.Errorf("document: %w", err)
	}
	for path, item := range objects(root["paths"]) {
		for method, op := range objects(item) {
			d.operations = append(d.operations, operation{
				node: op, id: text(op["operationId"]), method: strings.ToUpper(method), path: strings.Split(path, "/"),
				pointer: pointer("paths", path, method),
			})
		}
	}
	return d, nil
}

// resource is the document's name for the compiler.
const resource = "openapi.json"

// closeObjects lets no schema have properties that it does not name.
func closeObjects(value any) {
	switch v := value.(type) {
	case []any:
		for _, e := range v {
			closeObjects(e)
		}
	case node:
		if _, given := v["additionalProperties"]; !given && v["type"] == "object" && v["properties"] != nil {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			closeObjects(e)
		}
	}
}

// Unseen lists what the document tells of and nothing has shown yet: answers but
// problems, codes of problems, and events.
func (d *Document) Unseen() []string {
	seen := d.Seen()
	unseen := map[string]bool{}
	note := func(kind, name string, counts map[string]int) {
		if counts[name] == 0 {
			unseen[kind+" "+name] = true
		}
	}
	for _, op := range d.operations {
		codes, _ := op.node["x-codes"].([]any)
		for _, code := range codes {
			note("code", text(code), seen.Codes)
		}
		for status, response := range objects(op.node["responses"]) {
			content := objects(d.resolve(response)["content"])
			if len(content) == 0 {
				note("answer", answerName(op.id, status, ""), seen.Answers)
			}
			for media, described := range content {
				if media != problemMediaType {
					note("answer", answerName(op.id, status, media), seen.Answers)
				}
				for event := range objects(described["x-sse-events"]) {
					note("event", event, seen.Events)
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(unseen))
}

func answerName(id, status, media string) string {
	return strings.TrimSpace(id + " " + status + " " + media)
}

// Seen returns what was checked so far.
func (d *Document) Seen() Seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Seen{Answers: maps.Clone(d.seen.Answers), Codes: maps.Clone(d.seen.Codes), Events: maps.Clone(d.seen.Events)}
}

// validate holds a JSON value against the schema at a place in the document.
func (d *Document) validate(at string, value any) error {
	d.mu.Lock()
	schema, ok := d.schemas[at]
	var err error
	if !ok {
		if schema, err = d.compiler.Compile(resource + "#" + at); err == nil {
			d.schemas[at] = schema
		}
	}
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("schema of the document: %w", err)
	}
	return schema.Validate(value)
}

// validateJSON is validate for a text.
func (d *Document) validateJSON(at string, b []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return err
	}
	return d.validate(at, value)
}

// CheckExamples holds the examples of requests against their schemas, and counts them.
func (d *Document) CheckExamples() (n int, err error) {
	for _, op := range d.operations {
		body, _ := op.node["requestBody"].(node)
		for media, content := range objects(body["content"]) {
			for name, example := range objects(content["examples"]) {
				n++
				if fault := d.validate(op.pointer+pointer("requestBody", "content", media, "schema"), example["value"]); fault != nil {
					err = errors.Join(err, fmt.Errorf("%s: example %s: %w", op.id, name, fault))
				}
			}
		}
	}
	return n, err
}

// resolve follows a reference within the document.
func (d *Document) resolve(of node) node {
	to, ok := strings.CutPrefix(text(of["$ref"]), "#/")
	if !ok {
		return of
	}
	at := d.root
	for name := range strings.SplitSeq(to, "/") {
		at, _ = at[unescape.Replace(name)].(node)
	}
	return at
}

var unescape = strings.NewReplacer("~1", "/", "~0", "~") //nolint:gochecknoglobals // a constant

// pointer is a JSON pointer (RFC 6901) as a fragment.
func pointer(names ...string) string {
	var b strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	for _, name := range names {
		b.WriteString("/" + escape.Replace(name))
	}
	return b.String()
}

func text(value any) string {
	s, _ := value.(string)
	return s
}

// objects are the members of an object that are objects themselves.
func objects(value any) map[string]node {
	members := make(map[string]node)
	of, _ := value.(node)
	for name, member := range of {
		if m, ok := member.(node); ok {
			members[name] = m
		}
	}
	return members
}

//go:embed testdata/oas-3.1-*.json
var metaSchemas embed.FS

// CheckDocument holds a document against the schema of OpenAPI 3.1, and each of its
// schemas against the dialect of such documents.
func CheckDocument(document []byte) error {
	compiler := jsonschema.NewCompiler()
	var base string
	for _, name := range []string{"schema", "dialect", "meta", "schema-base"} {
		file, err := metaSchemas.Open("testdata/oas-3.1-" + name + ".json")
		if err != nil {
			return fmt.Errorf("schema of OpenAPI: %w", err)
		}
		value, err := jsonschema.UnmarshalJSON(io.Reader(file))
		if err = errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("schema of OpenAPI: %w", err)
		}
		schema, _ := value.(node)
		base = text(schema["$id"])
		if err := compiler.AddResource(base, schema); err != nil {
			return fmt.Errorf("schema of OpenAPI: %w", err)
		}
	}
	schema, err := compiler.Compile(base)
	if err != nil {
		return fmt.Errorf("schema of OpenAPI: %w", err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return fmt.Errorf("document: %w", err)
	}
	return schema.Validate(value)
}
