package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
)

// pages are those that show how the examples are run: in blocks marked sh, which stand
// for nothing else there.
var pages = []string{"README.md", "examples/README.md"}

// block is one block of a page: commands for a shell, as a reader would paste them.
type block struct {
	page, text string
}

// ofModel tells those that need a model from those that are content with a script.
func (b block) ofModel() bool { return strings.Contains(b.text, " -a claude ") }

// last is its last command, for where those before it have been run already.
func (b block) last() string {
	return b.text[strings.LastIndex(strings.TrimSpace(b.text), "\n")+1:]
}

func (b block) name() string {
	name := "script"
	if b.ofModel() {
		name = "model"
	}
	return language.FindStringSubmatch(b.text)[1] + " " + name + " in " + strings.ReplaceAll(b.page, "/", " ")
}

var (
	shBlock  = regexp.MustCompile("(?m)^```sh\n((?:[^`].*\n)+)```$")
	language = regexp.MustCompile(`examples/([a-z]+)`)
	// theMessage is the last word of a block, in quotes.
	theMessage = regexp.MustCompile(`'[^']*'\n$`)
)

// printed are the blocks of the pages.
func printed(t *testing.T, tree string) []block {
	t.Helper()
	var found []block
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(tree, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range shBlock.FindAllStringSubmatch(string(text), -1) {
			found = append(found, block{page, m[1]})
		}
	}
	return found
}

// gallery is a copy of the tree, as far as the examples take, in which they are run.
type gallery struct {
	t    *testing.T
	tree string
	env  []string
}

func newGallery(t *testing.T) *gallery {
	t.Helper()
	built := filepath.Dir(program(t))
	source := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		source = filepath.Join(built, "tree") // scripts/as-user.sh puts it there
	}
	g := &gallery{t: t, tree: t.TempDir()}
	for _, name := range []string{"README.md", "go.mod", "go.sum", "client", "protocol", "examples"} {
		g.copy(filepath.Join(source, name), filepath.Join(g.tree, name))
	}
	// What npm has loaded already, so that no test waits for a registry.
	cache := filepath.Join(t.TempDir(), "npm")
	g.copy(filepath.Join(built, "examples", "npm"), cache)
	registry, err := os.ReadFile(filepath.Join(cache, "registry"))
	if err != nil {
		t.Fatalf("%v (make examples makes it)", err)
	}
	g.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8",
		"GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOTOOLCHAIN=local",
		"npm_config_cache=" + cache, "npm_config_offline=true", "npm_config_registry=" + strings.TrimSpace(string(registry)),
	}
	return g
}

// copy copies a file, or a directory with what npm and tsc may have put there left out.
func (g *gallery) copy(from, to string) {
	g.t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		g.t.Fatalf("%v (make examples makes what npm needs)", err)
	}
	if info.IsDir() {
		err = os.CopyFS(to, os.DirFS(from))
		for _, made := range []string{"node_modules", "dist"} {
			_ = os.RemoveAll(filepath.Join(to, "typescript", made))
		}
	} else {
		var text []byte
		if text, err = os.ReadFile(from); err == nil {
			err = os.WriteFile(to, text, 0o644)
		}
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// shell is commands pasted into a shell, with a daemon and what is typed.
func (g *gallery) shell(t *testing.T, commands, typed string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", commands)
	cmd.Dir = g.tree
	cmd.Env = slices.Concat(g.env, env)
	cmd.Stdin = strings.NewReader(typed)
	return cmd
}

// run runs them to their end.
func (g *gallery) run(t *testing.T, commands, typed string, env ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := g.shell(t, commands, typed, env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// wants runs a block that must go well, and holds what it shows against a pattern.
func (g *gallery) wants(t *testing.T, commands, typed, pattern string, env ...string) {
	t.Helper()
	stdout, stderr, status := g.run(t, commands, typed, env...)
	if status != 0 || stderr != "" || !regexp.MustCompile(`^`+pattern+`$`).MatchString(stdout) {
		t.Errorf("%s: status %d\n%s\n%s\nwant\n%s", commands, status, stdout, stderr, pattern)
	}
}

const (
	sorted   = "attic,2026-04-01\ndoor,2026-03-01\nroof,2026-05-01\n"
	unsorted = "roof,2026-05-01\ndoor,2026-03-01\nattic,2026-04-01\n"
	put      = "put plan.csv: 49 bytes\n"
	counted  = "exec wc -l plan.csv: 3 plan.csv\nget plan.csv:\n"
	// cost is what a turn tells last: 1 its tokens, 2 its dollars.
	cost = "\nfinished: %s tokens, \\$%s, [0-9.e-]+ s\n"
)

// byScript is what the examples show of a script that sorts.
var byScript = put + "sorted\n" + fmt.Sprintf(cost, "0", `0(\.0000)?`) + counted + sorted

// Every command line that the pages show for the examples does what they say, with a
// daemon and with a model; the question is answered by what is typed, and silence denies.
func TestExamplesRunAsTheyArePrinted(t *testing.T) {
	g := newGallery(t)
	d := serve(t, t.TempDir())
	model := anthropictest.New(t, anthropictest.Options{Otherwise: sorting, Key: canary})
	s := playOn(t, model, permissions(t, `{"ask": ["bash(sort *)"]}`))

	const paid, dollars = `[1-9][0-9]*`, `[0-9.e-]*[1-9][0-9.e-]*`
	question := put + `I sort it\.\n\[bash\]\nbash wants {"command": ?"sort -o plan.csv plan.csv"}: allow\? \[y/N\] `
	allowed := question + `\[allow\]\n\[bash ok\] .*\nIt is sorted\.` + fmt.Sprintf(cost, paid, dollars) + counted + sorted
	denied := question + `\[deny\]\n\[bash failed\] .*denied.*\nIt is not sorted\.` + fmt.Sprintf(cost, paid, dollars) + counted + unsorted
	blocks := printed(t, g.tree)
	if len(blocks) != 10 {
		t.Errorf("%d blocks are on the pages; want two of README.md, and two for each language", len(blocks))
	}
	for _, b := range blocks {
		t.Run(b.name(), func(t *testing.T) {
			if !b.ofModel() {
				g.wants(t, b.text, "", byScript, "CARREL_URL="+d.url)
				return
			}
			g.wants(t, b.text, "y\n", allowed, "CARREL_URL="+s.url)
			g.wants(t, b.last(), "", denied, "CARREL_URL="+s.url)
		})
	}
	d.stop()
	s.stop()
}

// sorting plays the model that the pages' message is for.
func sorting(q *anthropictest.Request) anthropictest.Reply {
	if results := q.Last().Results(); len(results) > 0 {
		text := []string{"It is ", "sorted."}
		if results[0].IsError {
			text = []string{"It is ", "not sorted."}
		}
		return anthropictest.Reply{Blocks: []anthropictest.Block{anthropictest.Text(text...)}}
	}
	return anthropictest.Reply{Blocks: []anthropictest.Block{
		anthropictest.Text("I sort ", "it."), bash(fmt.Sprint("t_", len(q.Messages)), "sort -o plan.csv plan.csv"),
	}}
}

// scripts are the blocks of examples/README.md that a script is enough for.
func (g *gallery) scripts() []block {
	return slices.DeleteFunc(printed(g.t, g.tree), func(b block) bool { return b.ofModel() || b.page != "examples/README.md" })
}

// The examples sign in, and say in one line why they may not.
func TestExamplesSignIn(t *testing.T) {
	gallery := newGallery(t)
	g := serveGuarded(t)
	wrong := strings.Repeat("wrong", 8)
	for _, b := range gallery.scripts() {
		t.Run(b.name(), func(t *testing.T) {
			gallery.wants(t, b.text, "", byScript, "CARREL_URL="+g.url, "CARREL_API_KEY="+g.ana)
			for name, key := range map[string]string{"wrong": wrong, "bob's": g.bob} {
				want := "chat: unauthorized: "
				if key == g.bob {
					want = "chat: forbidden: "
				}
				stdout, stderr, status := gallery.run(t, b.last(), "", "CARREL_URL="+g.url, "CARREL_API_KEY="+key)
				said, _, _ := strings.Cut(stderr, "\n")
				if status == 0 || stdout != "" || !strings.HasPrefix(said, want) || strings.Contains(stderr, key) || strings.Count(stderr, "\n") > 2 {
					t.Errorf("with the key %s: status %d\n%s\n%s", name, status, stdout, stderr)
				}
			}
		})
	}
	g.stop()
}

// saying replaces what a block says to the agent.
func (b block) saying(script string) string {
	return theMessage.ReplaceAllLiteralString(b.text, "'"+script+"'\n")
}

// What a run prints is seen while the run goes on: this one ends when it has been.
func TestExamplesShowTextAsItComes(t *testing.T) {
	g := newGallery(t)
	d := serve(t, t.TempDir())
	for _, b := range g.scripts() {
		t.Run(b.name(), func(t *testing.T) {
			cmd := g.shell(t, b.saying("rm -f seen; echo one; until [ -e seen ]; do sleep 0.02; done; echo two"), "", "CARREL_URL="+d.url)
			var errOut bytes.Buffer
			cmd.Stderr = &errOut
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var shown []string
			for lines := bufio.NewScanner(stdout); lines.Scan(); {
				shown = append(shown, lines.Text())
				if lines.Text() == "one" {
					if _, err := d.client.PutFile(t.Context(), "ana", "seen", strings.NewReader(""), 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cmd.Wait(); err != nil || !slices.Contains(shown, "two") {
				t.Errorf("%v\n%s\n%s", err, strings.Join(shown, "\n"), &errOut)
			}
		})
	}
	d.stop()
}

// A product passes on what its users call their files: no name leads out of the user's
// own, whatever the language's HTTP client makes of dots.
func TestNoNameInTheExamplesLeadsToAnotherUser(t *testing.T) {
	g := newGallery(t)
	d := serve(t, t.TempDir())
	const secret = "bob's own"
	if _, err := d.client.PutFile(t.Context(), "bob", "secret", strings.NewReader(secret), int64(len(secret))); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := g.run(t, "npm --prefix examples/typescript --silent ci && npm --prefix examples/typescript --silent run build", ""); status != 0 {
		t.Fatal(stderr)
	}
	for language, read := range map[string]string{
		"python": `PYTHONPATH=examples/python python3 -c '
import os, sys
from carrel import Carrel
print(Carrel(os.environ["CARREL_URL"]).get(*sys.argv[1:]))' `,
		"typescript": `node --input-type=module -e '
const { Carrel } = await import(process.cwd() + "/examples/typescript/dist/carrel.js");
console.log(await new Carrel(process.env.CARREL_URL).get(...process.argv.slice(1)));' `,
	} {
		t.Run(language, func(t *testing.T) {
			for _, names := range []string{"ana ../../bob/files/secret", "ana a/../../../bob/files/secret", ". secret", "../users/bob secret"} {
				stdout, stderr, status := g.run(t, read+names, "", "CARREL_URL="+d.url)
				if status == 0 || stdout != "" || !strings.Contains(stderr, "is no name") && !strings.Contains(stderr, "not_found") {
					t.Errorf("%s: status %d\n%s\n%s", names, status, stdout, stderr)
				}
			}
			if stdout, stderr, status := g.run(t, read+"bob secret", "", "CARREL_URL="+d.url); status != 0 {
				t.Errorf("his own: %s\n%s", stdout, stderr)
			}
		})
	}
	d.stop()
}

// What the examples in other languages show of a run has neither gap nor double, however
// often the connection is cut on which its events come.
func TestExamplesReadOnOverALineThatBreaks(t *testing.T) {
	g := newGallery(t)
	d := serve(t, t.TempDir())
	const script = `i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo "$i."; /bin/true; done`
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "%d.\n", i+1)
	}
	shown := put + strings.ReplaceAll(lines.String(), ".", `\.`) + fmt.Sprintf(cost, "0", `0(\.0000)?`) + counted + unsorted
	for _, b := range g.scripts() {
		if strings.Contains(b.text, "examples/go") {
			continue // its events are package client's, and have their own test
		}
		t.Run(b.name(), func(t *testing.T) {
			l := newLine(t, d.url, "/events", 32<<10)
			g.wants(t, b.saying(script), "", shown, "CARREL_URL="+l.url)
			if l.cutSoFar() == 0 {
				t.Error("no connection was cut, which holds nothing")
			}
		})
	}
	d.stop()
}
