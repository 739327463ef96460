package architecture

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"carrel" //nolint:depguard // the page is held against what the front door says of itself
)

// TestReadmeHasTheConfigurationTable holds the page against the code: a key, a
// default or a meaning that changes there changes here.
func TestReadmeHasTheConfigurationTable(t *testing.T) {
	holdPage(t, "../../README.md", "configuration", configurationTable())
}

// holdPage compares what stands between two marks of a page with what should, and
// renews it where CARREL_UPDATE is set.
func holdPage(t *testing.T, file, part, want string) {
	t.Helper()
	begin := "<!-- " + part + ": made by CARREL_UPDATE=1 go test ./internal/architecture -->\n"
	end := "<!-- end of " + part + " -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	if !ok {
		t.Fatalf("%s lacks the mark where the part %q begins", file, part)
	}
	have, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s lacks the mark where the part %q ends", file, part)
	}
	if have == want {
		return
	}
	if os.Getenv("CARREL_UPDATE") == "" {
		t.Fatalf("the part %q of %s is out of date: CARREL_UPDATE=1 go test ./internal/architecture", part, file)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

func configurationTable() string {
	var b strings.Builder
	b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	for _, k := range (carrel.Config{}).Table() {
		fallback := "–"
		if k.Default != "" {
			fallback = "`" + k.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Key, fallback, k.Meaning)
	}
	return b.String()
}
