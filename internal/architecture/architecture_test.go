// Package architecture holds the import table of the module against the dependency
// graph that the go command sees. It is a package of its own because it needs the
// go command and the source, which a copied test binary has not.
package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "carrel"

// pkg is what `go list -json` tells of a package; Deps is everything it links.
type pkg struct {
	ImportPath string
	Standard   bool
	Module     *struct{ Main bool }
	Imports    []string
	Deps       []string
}

func TestRoomsImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, fault := range faults(rooms, list(t)) {
		t.Error(fault)
	}
}

func TestJailedHalfLinksNothingItMustNot(t *testing.T) {
	for _, fault := range banned(jailedHalf, bans, list(t)) {
		t.Error(fault)
	}
}

// Whoever embeds the client links the standard library besides, and nothing that only
// this module may import.
func TestClientLinksNothingButProtocol(t *testing.T) {
	for _, fault := range linking(publicClient, publicRooms, list(t)) {
		t.Error(fault)
	}
}

func TestOnlyTheModelsClientSpeaksHTTPInTheJailedHalf(t *testing.T) {
	for _, fault := range naming("net/http", jailedHalf, httpClients, list(t)) {
		t.Error(fault)
	}
}

func TestEveryRowOfTheTableIsARoom(t *testing.T) {
	packages := list(t)
	for _, r := range rooms {
		if !slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == importPath(r.path) }) {
			t.Errorf("%s has a row in the import table, but there is no such package", r.path)
		}
		if r.why == "" {
			t.Errorf("%s has no reason in the import table", r.path)
		}
		for _, name := range r.rooms {
			if !slices.ContainsFunc(rooms, func(other room) bool { return other.path == name }) {
				t.Errorf("%s may import %s, which has no row", r.path, name)
			}
		}
	}
}

// The table holds nothing if the check cannot fail: each kind of fault, made up.
func TestFaultsAreFound(t *testing.T) {
	table := []room{
		{path: ".", rooms: []string{"internal/a"}, why: "wires"},
		{path: "internal/a", foreign: []string{"example.org/good"}, why: "stands alone"},
	}
	packages := []pkg{
		{ImportPath: "fmt", Standard: true},
		own("carrel", "carrel/internal/a", "carrel/internal/b"),
		own("carrel/internal/a", "fmt", "example.org/good/deep", "example.org/goodness", "carrel"),
		own("carrel/internal/b"),
	}
	want := []string{
		"carrel may not import carrel/internal/b: wires",
		"carrel/internal/a may not import example.org/goodness: stands alone",
		"carrel/internal/a may not import carrel: stands alone",
		"carrel/internal/b has no row in the import table",
	}
	if diff := cmp.Diff(want, faults(table, packages)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestBansReachThroughOtherPackages(t *testing.T) {
	bans := []ban{{paths: []string{"net/http", "carrel/internal/engine"}, why: "serves nobody"}}
	w := own("carrel/cmd/w", "carrel/internal/a")
	w.Deps = []string{"carrel/internal/a", "carrel/internal/engine/local", "fmt", "net", "net/http", "net/httpx"}
	want := []string{
		"carrel/cmd/w links carrel/internal/engine/local: serves nobody",
		"carrel/cmd/w links net/http: serves nobody",
	}
	if diff := cmp.Diff(want, banned("carrel/cmd/w", bans, []pkg{w})); diff != "" {
		t.Errorf("banned (-want +got):\n%s", diff)
	}
	if got := banned("carrel/cmd/gone", bans, []pkg{w}); len(got) != 1 {
		t.Errorf("a program that is not there gave %q, want one fault", got)
	}
}

func TestLinkingFindsWhatComesInThroughOthers(t *testing.T) {
	c := own("carrel/client", "carrel/protocol")
	c.Deps = []string{"carrel/internal/jail", "carrel/protocol", "example.org/x", "fmt"}
	want := []string{
		"carrel/client links carrel/internal/jail: it may link [protocol] and the standard library alone",
		"carrel/client links example.org/x: it may link [protocol] and the standard library alone",
	}
	packages := []pkg{c, {ImportPath: "fmt", Standard: true}}
	if diff := cmp.Diff(want, linking("carrel/client", []string{"protocol"}, packages)); diff != "" {
		t.Errorf("linking (-want +got):\n%s", diff)
	}
	if got := linking("carrel/gone", nil, packages); len(got) != 1 {
		t.Errorf("a package that is not there gave %q, want one fault", got)
	}
}

func TestNamingFindsWhoImportsWhat(t *testing.T) {
	w := own("carrel/cmd/w", "net/http", "carrel/internal/a", "carrel/internal/b")
	w.Deps = []string{"carrel/internal/a", "carrel/internal/b", "net/http"}
	packages := []pkg{w, own("carrel/internal/a", "net/http"), own("carrel/internal/b", "net/http"), own("carrel/internal/host", "net/http")}
	want := []string{
		"carrel/cmd/w imports net/http, which only [internal/a] may",
		"carrel/internal/b imports net/http, which only [internal/a] may",
	}
	if diff := cmp.Diff(want, naming("net/http", "carrel/cmd/w", []string{"internal/a"}, packages)); diff != "" {
		t.Errorf("naming (-want +got):\n%s", diff)
	}
}

func own(importPath string, imports ...string) pkg {
	return pkg{ImportPath: importPath, Module: &struct{ Main bool }{true}, Imports: imports}
}

// faults holds every package of the module to its row.
func faults(table []room, packages []pkg) []string {
	standard := map[string]bool{"C": true, "unsafe": true}
	for _, p := range packages {
		standard[p.ImportPath] = standard[p.ImportPath] || p.Standard
	}
	var found []string
	for _, p := range packages {
		if p.Module == nil || !p.Module.Main {
			continue
		}
		i := slices.IndexFunc(table, func(r room) bool { return importPath(r.path) == p.ImportPath })
		if i < 0 {
			found = append(found, p.ImportPath+" has no row in the import table")
			continue
		}
		for _, imported := range p.Imports {
			if !standard[imported] && !table[i].allows(imported) {
				found = append(found, fmt.Sprintf("%s may not import %s: %s", p.ImportPath, imported, table[i].why))
			}
		}
	}
	return found
}

// allows reports whether the row names imported, which is not of the standard
// library.
func (r room) allows(imported string) bool {
	return slices.ContainsFunc(r.rooms, func(name string) bool { return importPath(name) == imported }) ||
		slices.ContainsFunc(r.foreign, func(prefix string) bool { return within(imported, prefix) })
}

// banned holds everything that program links to the bans.
func banned(program string, bans []ban, packages []pkg) []string {
	i := slices.IndexFunc(packages, func(p pkg) bool { return p.ImportPath == program })
	if i < 0 {
		return []string{program + " is not there"}
	}
	var found []string
	for _, b := range bans {
		for _, dep := range packages[i].Deps {
			if slices.ContainsFunc(b.paths, func(prefix string) bool { return within(dep, prefix) }) {
				found = append(found, fmt.Sprintf("%s links %s: %s", program, dep, b.why))
			}
		}
	}
	return found
}

// naming holds which of the module's packages that program links import a package
// against those that may.
func naming(what, program string, allowed []string, packages []pkg) []string {
	i := slices.IndexFunc(packages, func(p pkg) bool { return p.ImportPath == program })
	if i < 0 {
		return []string{program + " is not there"}
	}
	var found []string
	for _, p := range packages {
		linked := p.ImportPath == program || slices.Contains(packages[i].Deps, p.ImportPath)
		may := slices.ContainsFunc(allowed, func(name string) bool { return importPath(name) == p.ImportPath })
		if p.Module != nil && p.Module.Main && linked && !may && slices.Contains(p.Imports, what) {
			found = append(found, fmt.Sprintf("%s imports %s, which only %v may", p.ImportPath, what, allowed))
		}
	}
	return found
}

// linking holds everything that a package links to the rooms it may link.
func linking(name string, allowed []string, packages []pkg) []string {
	i := slices.IndexFunc(packages, func(p pkg) bool { return p.ImportPath == name })
	if i < 0 {
		return []string{name + " is not there"}
	}
	var found []string
	for _, dep := range packages[i].Deps {
		standard := slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == dep && p.Standard })
		if !standard && !slices.ContainsFunc(allowed, func(room string) bool { return importPath(room) == dep }) {
			found = append(found, fmt.Sprintf("%s links %s: it may link %v and the standard library alone", name, dep, allowed))
		}
	}
	return found
}

// within reports whether importPath is prefix or below it.
func within(importPath, prefix string) bool {
	return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
}

func importPath(below string) string { return path.Join(module, below) }

// list returns every package of the module and everything they import.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Module,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the programs are built
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}
