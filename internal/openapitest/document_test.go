package openapitest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// pets is a small document with something of everything.
const pets = `{
  "openapi": "3.1.1",
  "info": {"title": "pets", "version": "1"},
  "paths": {
    "/pets/{id}": {
      "get": {
        "operationId": "getPet",
        "x-codes": ["not_found"],
        "parameters": [
          {"$ref": "#/components/parameters/id"},
          {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 9}}
        ],
        "responses": {
          "200": {
            "description": "it",
            "headers": {"X-Age": {"required": true, "schema": {"type": "integer"}}},
            "content": {
              "application/json": {"schema": {"$ref": "#/components/schemas/Pet"}},
              "text/event-stream": {"schema": {}, "x-sse-events": {"PET": {"$ref": "#/components/schemas/Pet"}}}
            }
          },
          "404": {"$ref": "#/components/responses/Problem"}
        }
      },
      "put": {
        "operationId": "putPet",
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}},
        "responses": {"204": {"description": "done"}}
      },
      "post": {
        "operationId": "watchPet",
        "responses": {"200": {"description": "it", "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/Pet"}}}}}
      }
    },
    "/files/{path}": {
      "get": {
        "operationId": "getFile",
        "parameters": [{"name": "path", "in": "path", "required": true, "x-many-segments": true, "schema": {"type": "string"}}],
        "responses": {"200": {"description": "it", "content": {"application/octet-stream": {"schema": {}}}}}
      }
    }
  },
  "components": {
    "parameters": {"id": {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}},
    "responses": {"Problem": {"description": "no", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}},
    "schemas": {
      "Pet": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "born": {"type": "string", "format": "date-time"}}},
      "Problem": {"type": "object", "required": ["status", "code"], "properties": {"status": {"type": "integer"}, "code": {"type": "string"}}}
    }
  }
}`

// good is an exchange as documented; a change makes another of it.
func good(t *testing.T, change func(*Exchange)) *Exchange {
	t.Helper()
	x := &Exchange{
		Method: http.MethodGet, URL: &url.URL{Path: "/pets/1", RawQuery: "limit=9"}, Request: http.Header{},
		Status: http.StatusOK, Answer: http.Header{"Content-Type": {"application/json"}, "X-Age": {"3"}},
		Body: []byte(`{"name": "Rex", "born": "2026-01-02T03:04:05Z"}`),
	}
	change(x)
	return x
}

func TestAnswerThatIsNotAsDocumentedIsFound(t *testing.T) {
	stream := func(body string) func(*Exchange) {
		return func(x *Exchange) {
			x.Answer.Set("Content-Type", "text/event-stream")
			x.Body = []byte(body)
		}
	}
	problem := func(body string) func(*Exchange) {
		return func(x *Exchange) {
			x.Status, x.Body = http.StatusNotFound, []byte(body)
			x.Answer = http.Header{"Content-Type": {"application/problem+json"}}
		}
	}
	put := func(body string) func(*Exchange) {
		return func(x *Exchange) {
			*x = Exchange{Method: http.MethodPut, URL: &url.URL{Path: "/pets/1"}, Request: http.Header{}, RequestBody: []byte(body), Status: 204, Answer: http.Header{}}
		}
	}
	nameless := func(body string) func(*Exchange) {
		return func(x *Exchange) {
			*x = Exchange{Method: http.MethodPost, URL: &url.URL{Path: "/pets/1"}, Request: http.Header{}, Status: 200, Body: []byte(body)}
			x.Answer = http.Header{"Content-Type": {"text/event-stream"}}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Exchange)
		fault  string // part of it; none: it is as documented
	}{
		{"as documented", func(*Exchange) {}, ""},
		{"HEAD", func(x *Exchange) { x.Method, x.Body = http.MethodHead, nil }, ""},
		{"a field is missing", func(x *Exchange) { x.Body = []byte(`{}`) }, "missing property 'name'"},
		{"a field has another type", func(x *Exchange) { x.Body = []byte(`{"name": 1}`) }, "want string"},
		{"a field has another format", func(x *Exchange) { x.Body = []byte(`{"name": "Rex", "born": "yesterday"}`) }, "date-time"},
		{"a field is not documented", func(x *Exchange) { x.Body = []byte(`{"name": "Rex", "age": 3}`) }, "additional properties 'age'"},
		{"no JSON", func(x *Exchange) { x.Body = []byte(`{"name"`) }, "EOF"},
		{"another status", func(x *Exchange) { x.Status = http.StatusAccepted }, "status 202 is not among"},
		{"another media type", func(x *Exchange) { x.Answer.Set("Content-Type", "text/html") }, "text/html is not among"},
		{"a header is missing", func(x *Exchange) { x.Answer.Del("X-Age") }, "lacks the header X-Age"},
		{"a header has another type", func(x *Exchange) { x.Answer.Set("X-Age", "old") }, "header X-Age"},
		{"a header is not documented", func(x *Exchange) { x.Answer.Set("X-Name", "Rex") }, "header X-Name, which is not"},
		{"a query parameter is not documented", func(x *Exchange) { x.URL.RawQuery = "page=2" }, "query parameter page"},
		{"a query parameter is out of bounds", func(x *Exchange) { x.URL.RawQuery = "limit=10" }, "query parameter limit"},
		{"another path", func(x *Exchange) { x.URL.Path = "/cats/1" }, "no such operation"},
		{"another method", func(x *Exchange) { x.Method = http.MethodDelete }, "no such operation"},
		{"a slash too much", func(x *Exchange) { x.URL.Path = "/pets/1/" }, "no such operation"},

		{"a stream", stream(": hi\n\nid: 1\nevent: PET\ndata: {\"name\": \"Rex\"}\n\n"), ""},
		{"a stream that is cut", func(x *Exchange) { stream("event: PET\ndata: {\"name\": \"Rex\"}\n\nevent: P")(x); x.Cut = true }, ""},
		{"a stream that ends early", stream("event: PET\ndata: {\"name\": \"Rex\"}\n\nevent: P"), "within the line"},
		{"a stream that ends within a frame", stream("event: PET\ndata: {}\n"), "within a frame"},
		{"an event has another shape", stream("event: PET\ndata: {}\n\n"), "missing property 'name'"},
		{"an event is not documented", stream("event: CAT\ndata: {\"name\": \"Tom\"}\n\n"), `event "CAT" is not among`},
		{"a stream without names", nameless("data: {\"name\": \"Rex\"}\n\n"), ""},
		{"a nameless event has another shape", nameless("data: {}\n\n"), "missing property 'name'"},
		{"an event has a name where none has", nameless("event: PET\ndata: {\"name\": \"Rex\"}\n\n"), `event "PET" is not among`},
		{"a line that is no field", stream("hello\n\n"), `the line "hello"`},

		{"a problem", problem(`{"status": 404, "code": "not_found"}`), ""},
		{"a problem with another code", problem(`{"status": 404, "code": "conflict"}`), "code conflict is not among"},
		{"a problem with another status", problem(`{"status": 410, "code": "not_found"}`), "says status 410"},
		{"a problem without a code", problem(`{"status": 404}`), "missing property 'code'"},

		{"a body", put(`{"name": "Rex"}`), ""},
		{"a wrong body is taken", put(`{"name": 1}`), "was taken with the body"},
		{"an answer that should be empty", func(x *Exchange) { put(`{"name": "Rex"}`)(x); x.Body = []byte("x") }, "should have none"},

		{"a path of many segments", func(x *Exchange) {
			x.URL, x.Answer = &url.URL{Path: "/files/a/b/c"}, http.Header{"Content-Type": {"application/octet-stream"}}
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := New([]byte(pets))
			if err != nil {
				t.Fatal(err)
			}
			err = d.Check(good(t, tt.change))
			if tt.fault == "" && err != nil {
				t.Errorf("as documented: %v", err)
			}
			if tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)) {
				t.Errorf("found %v, want %q", err, tt.fault)
			}
		})
	}
}

func TestOnlyGoodAnswersAreCounted(t *testing.T) {
	d, err := New([]byte(pets))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Check(good(t, func(x *Exchange) { x.Body = []byte("{}") })); err == nil {
		t.Error("a wrong answer passes")
	}
	if seen := d.Seen(); len(seen.Answers) > 0 {
		t.Errorf("a wrong answer is counted: %v", seen)
	}
	if err := d.Check(good(t, func(*Exchange) {})); err != nil {
		t.Fatal(err)
	}
	if seen := d.Seen(); len(seen.Answers) != 1 || seen.Answers["getPet 200 application/json"] != 1 {
		t.Errorf("seen %v", seen)
	}
	want := "answer getFile 200 application/octet-stream, answer getPet 200 text/event-stream, answer putPet 204, answer watchPet 200 text/event-stream, code not_found, event PET"
	if unseen := strings.Join(d.Unseen(), ", "); unseen != want {
		t.Errorf("unseen: %s", unseen)
	}
}

func TestTransportChecksWhatIsRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Age", "3")
		_, _ = io.WriteString(w, `{"name": "`+strings.Repeat("x", 1<<20)+`"`+r.URL.Query().Get("more")+`}`)
	}))
	defer server.Close()
	d, err := New([]byte(strings.ReplaceAll(pets, `"limit"`, `"more"`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, query string
		read        bool
		faults      int
	}{
		{"good", "", true, 0},
		{"wrong", `?more=,"age":3`, true, 2}, // of the query and of the body
		{"not read to its end", `?more=9`, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var reported []error
			base := &http.Transport{}
			defer base.CloseIdleConnections()
			client := http.Client{Transport: &Transport{Document: d, Base: base, Report: func(err error) { reported = append(reported, err) }}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/pets/1"+tt.query, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if tt.read {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if err != nil || (len(reported) > 0) != (tt.faults > 0) {
				t.Errorf("%v, reported %v", err, reported)
			}
			for _, err := range reported {
				if n := strings.Count(err.Error(), "validation failed"); n != tt.faults {
					t.Errorf("%d faults in %v", n, err)
				}
			}
		})
	}
}

func TestDocumentThatIsNoOpenAPIIsFound(t *testing.T) {
	for _, tt := range []struct{ name, old, new string }{
		{"as it is", "", ""},
		{"another version", "3.1.1", "3.0.3"},
		{"without a title", `"title": "pets", `, ""},
		{"a response without a description", `"description": "done"`, `"summary": "done"`},
		{"a parameter in no place", `"in": "query"`, `"in": "body"`},
		{"a schema of no type", `"type": "string", "format"`, `"type": "text", "format"`},
		{"a word that no object has", `"operationId": "putPet"`, `"operationID": "putPet"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.ReplaceAll(pets, tt.old, tt.new)
			if tt.old == "" {
				changed = pets
			}
			if err := CheckDocument([]byte(changed)); (err == nil) != (tt.old == "") {
				t.Errorf("found %v", err)
			}
		})
	}
}
