package openapitest

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// parameter is one that an operation takes.
type parameter struct {
	node

	schema string // where its schema is
}

// parameters are those of an operation that stand in a place: path, query or header.
func (d *Document) parameters(op operation, in string) []parameter {
	list, _ := op.node["parameters"].([]any)
	var found []parameter
	for i, entry := range list {
		p, _ := entry.(node)
		at := op.pointer + pointer("parameters", strconv.Itoa(i))
		if ref, ok := strings.CutPrefix(text(p["$ref"]), "#"); ok {
			at, p = ref, d.resolve(p)
		}
		if p["in"] == in {
			found = append(found, parameter{p, at + "/schema"})
		}
	}
	return found
}

// checkRequest holds a request that was taken against what the document says of it.
func (d *Document) checkRequest(x *Exchange, op operation) []error {
	var faults []error
	query := x.URL.Query()
	for _, p := range d.parameters(op, "query") {
		name := text(p.node["name"])
		if query.Has(name) && query.Get(name) != "" {
			faults = append(faults, d.checkText(p.schema, "query parameter "+name, query.Get(name)))
		} else if p.node["required"] == true {
			faults = append(faults, fmt.Errorf("was taken without the query parameter %s", name))
		}
		query.Del(name)
	}
	for name := range query {
		faults = append(faults, fmt.Errorf("takes a query parameter %s, which is not documented", name))
	}
	for _, p := range d.parameters(op, "header") {
		name := text(p.node["name"])
		if value := x.Request.Get(name); value != "" {
			faults = append(faults, d.checkText(p.schema, "header "+name, value))
		}
	}
	return append(faults, d.checkRequestBody(x, op))
}

func (d *Document) checkRequestBody(x *Exchange, op operation) error {
	body, ok := op.node["requestBody"].(node)
	if !ok || x.RequestBody == nil {
		if len(x.RequestBody) > 0 {
			return fmt.Errorf("takes a body of %d bytes, and none is documented", len(x.RequestBody))
		}
		return nil
	}
	content := objects(body["content"])
	media, _, err := mime.ParseMediaType(x.Request.Get("Content-Type"))
	if _, known := content[media]; err != nil || !known {
		if content["*/*"] != nil {
			return nil // anything
		}
		media = "application/json" // nothing said is as good as that
	}
	if !isJSON(media) {
		return nil
	}
	at := op.pointer + pointer("requestBody", "content", media, "schema")
	if err := d.validateJSON(at, x.RequestBody); err != nil {
		return fmt.Errorf("was taken with the body %.200s: %w", x.RequestBody, err)
	}
	return nil
}

// checkHeaders checks the headers of an answer, and that it has no other ones.
func (d *Document) checkHeaders(x *Exchange, at string, response node) []error {
	var faults []error
	known := map[string]bool{}
	for name, header := range objects(response["headers"]) {
		schema := at + pointer("headers", name, "schema")
		if ref, ok := strings.CutPrefix(text(header["$ref"]), "#"); ok {
			schema, header = ref+"/schema", d.resolve(header)
		}
		known[http.CanonicalHeaderKey(name)] = true
		value := x.Answer.Get(name)
		if header["x-trailer"] == true {
			value = x.Trailer.Get(name)
		}
		if value != "" {
			faults = append(faults, d.checkText(schema, "header "+name, value))
		} else if header["required"] == true {
			faults = append(faults, fmt.Errorf("lacks the header %s", name))
		}
	}
	for name := range x.Answer {
		if !known[name] && !slices.Contains(httpsOwn(), name) {
			faults = append(faults, fmt.Errorf("has a header %s, which is not documented", name))
		}
	}
	return faults
}

// httpsOwn are headers that say nothing of one operation: of the connection, the form of
// the body, caches and browsers.
func httpsOwn() []string {
	return []string{
		"Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Security-Policy", "Content-Type",
		"Cross-Origin-Resource-Policy", "Date", "Trailer", "Transfer-Encoding", "Vary", "X-Accel-Buffering",
		"X-Content-Type-Options",
	}
}

// checkText holds a text against a schema: as a number or a truth where it is one, else
// as a string.
func (d *Document) checkText(at, what, value string) error {
	candidates := []any{value}
	if _, err := strconv.ParseFloat(value, 64); err == nil {
		candidates = append(candidates, json.Number(value))
	}
	if value == "true" || value == "false" {
		candidates = append(candidates, value == "true")
	}
	var err error
	for _, candidate := range candidates {
		if err = d.validate(at, candidate); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is %q: %w", what, value, err)
}
