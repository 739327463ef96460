package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// description is the OpenAPI document of the API, made from the route table and the
// types of package protocol by CARREL_UPDATE=1 go test ./internal/httpapi -run OpenAPI.
//
//go:embed openapi.json
var description []byte

// describedVersion is what stands in the description for the daemon's own version. The
// API's major version takes its place where the daemon's is not for everybody.
const describedVersion = `"version": "1"`

// OpenAPI is the document that a daemon of a version serves; without a version it has
// the API's.
func OpenAPI(version string) []byte {
	if version != "" {
		quoted, err := json.Marshal(version)
		if err != nil {
			panic(fmt.Sprintf("a string has no JSON: %v", err))
		}
		// The first one is info's: TestOpenAPIDocumentHasTheDaemonsVersion.
		return compact(bytes.Replace(description, []byte(describedVersion), append([]byte(`"version": `), quoted...), 1))
	}
	return compact(description)
}

func compact(document []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, document); err != nil {
		panic(fmt.Sprintf("the OpenAPI document is no JSON: %v", err)) // it was built in, and tested
	}
	return b.Bytes()
}

// showOpenAPI serves GET /openapi.json.
func (a *api) showOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Length", strconv.Itoa(len(a.description)))
	w.WriteHeader(http.StatusOK)
	if _, err := newPacedWriter(w, a.opts.SlowReader).Write(a.description); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}
