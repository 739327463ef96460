package architecture

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"carrel"
)

var update = flag.Bool("update", false, "write the configuration table into the README")

// TestReadmeHasTheConfigurationTable holds the page against the code: a key, a
// default or a meaning that changes there changes here.
func TestReadmeHasTheConfigurationTable(t *testing.T) {
	const file, begin, end = "../../README.md", "-update -->\n", "<!-- end of configuration -->"
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
	if !*update {
		t.Fatal("the README's configuration table is out of date: go test ./internal/architecture -update")
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
