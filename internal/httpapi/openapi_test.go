package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"carrel/internal/openapitest"
)

// holdFile compares a file with what it should hold, and renews it where CARREL_UPDATE
// is set.
func holdFile(t *testing.T, file string, want []byte) {
	t.Helper()
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, want) {
		return
	}
	if os.Getenv("CARREL_UPDATE") == "" {
		t.Fatalf("%s is out of date: CARREL_UPDATE=1 go test ./internal/httpapi -run OpenAPI", file)
	}
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenAPIDocumentIsMadeOfTheRoutesAndTypes(t *testing.T) {
	document, err := makeDocument(t, Routes())
	if err != nil {
		t.Fatal(err)
	}
	made := encodeDocument(t, document)
	if err := openapitest.CheckDocument(made); err != nil {
		t.Fatalf("the document is no OpenAPI 3.1: %v", err)
	}
	// newSchemas has gone to the root.
	holdFile(t, "internal/httpapi/openapi.json", made)
	holdFile(t, "docs/api.md", makePage(document))
}

func encodeDocument(t *testing.T, document *docDocument) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("#/$defs/"), []byte(schemaPath)) // the library's place for schemas
}

func TestRouteWithoutAWordInTheOpenAPIDocumentIsFound(t *testing.T) {
	all := Routes()
	for _, tt := range []struct {
		name   string
		routes []Route
		fault  string
	}{
		{"all", all, ""},
		{"one more", append(slices.Clone(all), Route{"POST", "/v1/new", "Do it", nil, AdminOnly}), "POST /v1/new has no row in operations"},
		{"one less", all[1:], "has a row for POST /v1/execute"},
		{"a query parameter more", append(slices.Clone(all[1:]), Route{"POST", "/v1/execute", "", []string{"q"}, UserInBody}), `nothing of the query parameter "q"`},
		{"without a rule", append(slices.Clone(all[1:]), Route{Method: "POST", Pattern: "/v1/execute"}), "rule 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := makeDocument(t, tt.routes)
			if (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("found %v, want %q", err, tt.fault)
			}
		})
	}
}

// What generators of clients ask of a document besides its being one.
func TestOpenAPIDocumentSuitsGenerators(t *testing.T) {
	document, err := makeDocument(t, Routes())
	if err != nil {
		t.Fatal(err)
	}
	ids, used := map[string]bool{}, map[string]bool{}
	for _, path := range document.Paths {
		for _, op := range path.operations {
			if ids[op.OperationID] || !regexp.MustCompile(`^[a-z][a-zA-Z]+$`).MatchString(op.OperationID) {
				t.Errorf("operationId %q is taken, or no name for a function", op.OperationID)
			}
			ids[op.OperationID] = true
			if op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s: summary %q, tags %q", op.OperationID, op.Summary, op.Tags)
			}
			used[op.Tags[0]] = true
		}
	}
	for _, tag := range document.Tags {
		if !used[tag.Name] || tag.Description == "" {
			t.Errorf("tag %s: nothing has it, or it says nothing", tag.Name)
		}
		delete(used, tag.Name)
	}
	if len(used) > 0 {
		t.Errorf("tags without words: %v", used)
	}
	made := encodeDocument(t, document)
	for kind, names := range componentsOf(t, made) {
		for _, name := range names {
			if !bytes.Contains(made, []byte(`"#/components/`+kind+"/"+name+`"`)) {
				t.Errorf("nothing refers to components/%s/%s", kind, name)
			}
		}
	}
}

func componentsOf(t *testing.T, made []byte) map[string][]string {
	t.Helper()
	var document struct {
		Components map[string]map[string]json.RawMessage `json:"components"`
	}
	if err := json.Unmarshal(made, &document); err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	for kind, of := range document.Components {
		for name := range of {
			if kind != "securitySchemes" { // which are not referred to, but named
				names[kind] = append(names[kind], name)
			}
		}
	}
	return names
}

func TestExamplesOfTheOpenAPIDocumentFitTheirSchemas(t *testing.T) {
	document, err := openapitest.New(description)
	if err != nil {
		t.Fatal(err)
	}
	n, err := document.CheckExamples()
	if err != nil || n == 0 {
		t.Errorf("%d examples, %v", n, err)
	}
}

func TestOpenAPIDocumentHasTheDaemonsVersion(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts Options
		want string
	}{
		{"without a sign-in", Options{Version: `v1.2-"quoted"`}, `v1.2-"quoted"`},
		{"with one, as health", Options{Version: "v1.2", Identify: identify}, "1"},
		{"without a version", Options{}, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := ask(t, New(newFake(), tt.opts), http.MethodGet, "/openapi.json", "")
			served, kept := decodeAs[map[string]any](t, w), map[string]any{}
			if err := errors.Join(json.Unmarshal(description, &kept), openapitest.CheckDocument(w.Body.Bytes())); err != nil {
				t.Fatal(err)
			}
			info := served["info"].(map[string]any)            //nolint:forcetypeassert // CheckDocument has seen to it
			kept["info"].(map[string]any)["version"] = tt.want //nolint:forcetypeassert // likewise
			if info["version"] != tt.want || !equalJSON(t, served, kept) {
				t.Errorf("version %v, want %s, or the rest is another", info["version"], tt.want)
			}
		})
	}
}

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}
