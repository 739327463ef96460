package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	"carrel/protocol"
)

// The objects of OpenAPI 3.1 (spec.openapis.org/oas/v3.1.1), as far as ours has them.
type (
	docDocument struct {
		OpenAPI    string                `json:"openapi"`
		Info       docInfo               `json:"info"`
		Servers    []docServer           `json:"servers"`
		Security   []map[string][]string `json:"security"`
		Tags       []docTag              `json:"tags"`
		Paths      docPaths              `json:"paths"`
		Components docComponents         `json:"components"`
	}
	docInfo struct {
		Title       string            `json:"title"`
		Version     string            `json:"version"`
		Summary     string            `json:"summary"`
		Description string            `json:"description"`
		License     map[string]string `json:"license"`
	}
	docServer struct {
		URL         string `json:"url"`
		Description string `json:"description"`
	}
	docTag struct {
		Name        string `json:"name"`
		Description string `json:"description"`
	}
	docPaths []docPath // in the route table's order
	docPath  struct {
		path       string
		operations []*docOperation
	}
	docOperation struct {
		method string // lower case

		Tags        []string                `json:"tags"`
		Summary     string                  `json:"summary"`
		Description string                  `json:"description,omitempty"`
		OperationID string                  `json:"operationId"`
		Parameters  []*docParameter         `json:"parameters,omitempty"`
		RequestBody *docBody                `json:"requestBody,omitempty"`
		Responses   map[string]*docResponse `json:"responses"`
		Security    *[]map[string][]string  `json:"security,omitempty"` // empty: none
		Access      string                  `json:"x-access"`
		Codes       []protocol.Code         `json:"x-codes"`
	}
	docParameter struct {
		Ref         string             `json:"$ref,omitempty"`
		Name        string             `json:"name,omitempty"`
		In          string             `json:"in,omitempty"`
		Required    bool               `json:"required,omitempty"`
		Description string             `json:"description,omitempty"`
		Schema      *jsonschema.Schema `json:"schema,omitempty"`
		// ManySegments: of a path, it is all that follows, slashes and all.
		ManySegments bool `json:"x-many-segments,omitempty"`
	}
	docBody struct {
		Description string              `json:"description,omitempty"`
		Required    bool                `json:"required,omitempty"`
		Content     map[string]docMedia `json:"content"`
	}
	docResponse struct {
		Ref         string                `json:"$ref,omitempty"`
		Description string                `json:"description,omitempty"`
		Headers     map[string]*docHeader `json:"headers,omitempty"`
		Content     map[string]docMedia   `json:"content,omitempty"`
	}
	docHeader struct {
		Ref         string             `json:"$ref,omitempty"`
		Description string             `json:"description,omitempty"`
		Required    bool               `json:"required,omitempty"`
		Schema      *jsonschema.Schema `json:"schema,omitempty"`
		Trailer     bool               `json:"x-trailer,omitempty"`
	}
	docMedia struct {
		Schema   *jsonschema.Schema            `json:"schema,omitempty"` // none: bytes
		Examples map[string]docExample         `json:"examples,omitempty"`
		Events   map[string]*jsonschema.Schema `json:"x-sse-events,omitempty"` // by the frame's event
	}
	docExample struct {
		Summary string `json:"summary"`
		Value   any    `json:"value"`
	}
	docComponents struct {
		SecuritySchemes map[string]map[string]string  `json:"securitySchemes"`
		Parameters      map[string]*docParameter      `json:"parameters"`
		Headers         map[string]*docHeader         `json:"headers"`
		Responses       map[string]*docResponse       `json:"responses"`
		Schemas         map[string]*jsonschema.Schema `json:"schemas"`
	}
)

// MarshalJSON keeps the order.
func (p docPaths) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, at := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		operations := map[string]*docOperation{}
		for _, op := range at.operations {
			operations[op.method] = op
		}
		encoded, err := json.Marshal(operations)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", at.path, encoded)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// makeDocument makes the OpenAPI document of some routes.
func makeDocument(t *testing.T, routes []Route) (*docDocument, error) {
	t.Helper()
	s := newSchemas(t)
	d := &docDocument{
		OpenAPI: "3.1.1",
		Info: docInfo{
			Title: "carrel", Version: "1", Summary: "A jailed worker for each user of a product", Description: aboutAPI,
			License: map[string]string{"name": "Apache 2.0", "identifier": "Apache-2.0"},
		},
		Servers:  []docServer{{URL: "/", Description: "The daemon that served this document"}},
		Security: []map[string][]string{{"apiKey": {}}},
		Tags:     tags(),
		Components: docComponents{
			SecuritySchemes: map[string]map[string]string{"apiKey": {"type": "http", "scheme": "bearer", "description": aboutKeys}},
			Parameters:      sharedParameters(),
			Headers:         sharedHeaders(),
			Schemas:         s.named,
		},
	}
	s.answer(protocol.Problem{})
	d.Components.Responses = problemResponses(s)
	table := operations(t, s)
	s.refine(t)
	for _, r := range routes {
		name := r.Method + " " + r.Pattern
		row, ok := table[name]
		if !ok {
			return nil, fmt.Errorf("%s has no row in operations (openapi_operations_test.go): give it one, then CARREL_UPDATE=1 go test ./internal/httpapi -run OpenAPI", name)
		}
		delete(table, name)
		op, err := row.document(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		d.Paths.add(strings.ReplaceAll(r.Pattern, "...}", "}"), op)
	}
	for name := range table {
		return nil, fmt.Errorf("operations (openapi_operations_test.go) has a row for %s, and the route table has none", name)
	}
	return d, nil
}

func (p *docPaths) add(path string, op *docOperation) {
	for i, at := range *p {
		if at.path == path {
			(*p)[i].operations = append(at.operations, op)
			return
		}
	}
	*p = append(*p, docPath{path, []*docOperation{op}})
}

// operation is what the document says of a route besides the route table.
type operation struct {
	id, tag string
	about   string
	query   map[string]docParameter // those of the route, by name
	headers []string                // of the request: names of sharedParameters
	body    *docBody
	answers map[int]docResponse
	codes   []protocol.Code // besides those of its rule
	refuses []int           // statuses that no code has for its own
}

// document puts a route and what is said of it together.
func (o operation) document(r Route) (*docOperation, error) {
	who := access(r.Rule)
	if who == "" {
		return nil, fmt.Errorf("rule %d has no words (access)", r.Rule)
	}
	d := &docOperation{
		method: strings.ToLower(r.Method), Tags: []string{o.tag}, Summary: r.Summary, Description: o.about, OperationID: o.id,
		RequestBody: o.body, Responses: map[string]*docResponse{}, Access: who,
	}
	for name := range strings.SplitSeq(r.Pattern, "/") {
		if name, ok := strings.CutPrefix(name, "{"); ok {
			d.Parameters = append(d.Parameters, &docParameter{Ref: "#/components/parameters/" + strings.TrimRight(name, ".}")})
		}
	}
	for _, name := range r.Query {
		p, ok := o.query[name]
		if !ok {
			return nil, fmt.Errorf("its row in operations says nothing of the query parameter %q", name)
		}
		p.Name, p.In = name, "query"
		d.Parameters = append(d.Parameters, &p)
	}
	if len(o.query) > len(r.Query) {
		return nil, errors.New("its row in operations has query parameters that the route table has not")
	}
	for _, name := range o.headers {
		d.Parameters = append(d.Parameters, &docParameter{Ref: "#/components/parameters/" + name})
	}
	for status, answer := range o.answers {
		answer.Headers["X-Request-Id"] = header("X-Request-Id")
		d.Responses[strconv.Itoa(status)] = &answer
	}
	o.refuse(d, r.Rule)
	return d, nil
}

// refuse adds the problems that an operation may answer with.
func (o operation) refuse(d *docOperation, rule Rule) {
	codes := append(everywhere(), o.codes...)
	if rule == Open {
		d.Security = &[]map[string][]string{}
	} else {
		codes = append(codes, signedIn()...)
	}
	if rule == RunOwner {
		codes = append(codes, protocol.CodeNotFound)
	}
	slices.Sort(codes)
	d.Codes = slices.Compact(codes)
	statuses := slices.Clone(o.refuses)
	for _, code := range d.Codes {
		statuses = append(statuses, code.HTTPStatus())
	}
	for _, status := range statuses {
		name := strconv.Itoa(status)
		if d.Responses[name] == nil {
			d.Responses[name] = &docResponse{Ref: "#/components/responses/" + problemName(status)}
		}
	}
}

// everywhere are the codes of every route.
func everywhere() []protocol.Code {
	return []protocol.Code{protocol.CodeInvalidRequest, protocol.CodeForbidden, protocol.CodeInternal}
}

// signedIn are those of the routes that need a key, besides.
func signedIn() []protocol.Code {
	return []protocol.Code{protocol.CodeUnauthorized, protocol.CodeRateLimited, protocol.CodeCanceled, protocol.CodeShuttingDown}
}

// access says who may call a route of a rule.
func access(rule Rule) string {
	switch rule {
	case Open:
		return "everybody, without a key"
	case AdminOnly:
		return "admin keys"
	case UserInPath:
		return "admin keys, and the user's own"
	case RunOwner:
		return "admin keys, and those of the run's user; to others there is no such run"
	case UserInBody:
		return "admin keys, and those of the body's user"
	case UserInHeader:
		return "admin keys, and those of the user whom X-Carrel-User names"
	case OwnRuns:
		return "every key; a user's sees its own"
	default:
		return ""
	}
}

// refusals are the statuses that have no code of their own, with the one they come with.
func refusals() map[int]protocol.Code {
	return map[int]protocol.Code{
		http.StatusMethodNotAllowed:             protocol.CodeInvalidRequest,
		http.StatusNotAcceptable:                protocol.CodeInvalidRequest,
		http.StatusRequestTimeout:               protocol.CodeInvalidRequest,
		http.StatusPreconditionFailed:           protocol.CodeConflict,
		http.StatusUnsupportedMediaType:         protocol.CodeInvalidRequest,
		http.StatusRequestedRangeNotSatisfiable: protocol.CodeInvalidRequest,
	}
}

// problemName names the response of a status.
func problemName(status int) string {
	if status == statusClientGone {
		return "ClientClosedRequest"
	}
	return strings.NewReplacer(" ", "", "-", "").Replace(http.StatusText(status))
}

// problemResponses makes one response for each status that a problem may have.
func problemResponses(s *schemas) map[string]*docResponse {
	byStatus := map[int][]any{}
	for _, c := range s.constants["Code"] {
		status := protocol.Code(c.value).HTTPStatus()
		byStatus[status] = append(byStatus[status], c.value)
	}
	for status, code := range refusals() {
		if status == http.StatusMethodNotAllowed {
			continue // no operation's
		}
		byStatus[status] = append(byStatus[status], string(code))
	}
	responses := map[string]*docResponse{}
	for status, codes := range byStatus {
		properties := jsonschema.NewProperties()
		properties.Set("status", &jsonschema.Schema{Const: status})
		properties.Set("code", &jsonschema.Schema{Enum: codes})
		r := &docResponse{
			Description: fmt.Sprintf("%s: `%s`", strings.TrimSpace(http.StatusText(status)), strings.Trim(strings.ReplaceAll(fmt.Sprint(codes...), " ", "`, `"), "[]")),
			Headers:     map[string]*docHeader{"X-Request-Id": header("X-Request-Id")},
			Content: map[string]docMedia{protocol.ProblemMediaType: {Schema: &jsonschema.Schema{
				Ref: schemaPath + "Problem", Properties: properties,
			}}},
		}
		switch status {
		case http.StatusUnauthorized:
			r.Headers["WWW-Authenticate"] = header("WWW-Authenticate")
		case http.StatusRequestedRangeNotSatisfiable:
			r.Headers["Content-Range"] = header("Content-Range")
		}
		for _, name := range []string{"Retry-After", "Location", "Idempotent-Replayed"} {
			r.Headers[name] = header(name)
		}
		responses[problemName(status)] = r
	}
	return responses
}

func header(name string) *docHeader { return &docHeader{Ref: "#/components/headers/" + name} }
