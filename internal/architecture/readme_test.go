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
	const file, begin, end = "../../README.md", "./internal/architecture -->\n", "<!-- end of configuration -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	if !ok {
		t.Fatal("the README lacks the mark where the table begins")
	}
	have, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatal("the README lacks the mark where the table ends")
	}
	want := configurationTable()
	if have == want {
		return
	}
	if os.Getenv("CARREL_UPDATE") == "" {
		t.Fatal("the README's configuration table is out of date: CARREL_UPDATE=1 go test ./internal/architecture")
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
