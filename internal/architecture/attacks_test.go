package architecture

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"carrel/internal/selftest"
)

// TestPagesHaveTheTableOfAttacks holds three pages against the table: its rows, which
// layer stops which of them, and how many there are.
func TestPagesHaveTheTableOfAttacks(t *testing.T) {
	table := selftest.Table()
	holdPage(t, "../../docs/attacks.md", "attacks", attackTable(table))
	holdPage(t, "../../docs/security.md", "layers", layerTable(table))
	holdPage(t, "../../README.md", "attacks", attackCounts(table))
}

func attackTable(table []selftest.Entry) string {
	var b strings.Builder
	b.WriteString("| # | row | tier | the attack | stopped by |\n|---|---|---|---|---|\n")
	for _, e := range table {
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s |\n", e.Number, e.ID, e.Tier, e.Title, strings.Join(e.StoppedBy, ", "))
	}
	return b.String()
}

// layerTable lists, for each thing that stops a row, the rows it stops.
func layerTable(table []selftest.Entry) string {
	rows := make(map[string][]int)
	for _, e := range table {
		for _, by := range e.StoppedBy {
			layer, _, _ := strings.Cut(by, ":")
			rows[layer] = append(rows[layer], e.Number)
		}
	}
	var b strings.Builder
	b.WriteString("| what stops them | rows |\n|---|---|\n")
	for _, layer := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&b, "| %s | %s |\n", layer, ranges(slices.Compact(rows[layer])))
	}
	return b.String()
}

// ranges writes 1, 2, 3, 7 as "1–3, 7".
func ranges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := strconv.Itoa(numbers[i])
		if j > i {
			part += "–" + strconv.Itoa(numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

func attackCounts(table []selftest.Entry) string {
	groups, tiers := make(map[string]int), make(map[string]int)
	for _, e := range table {
		groups[e.Group]++
		tiers[string(e.Tier)]++
	}
	list := func(counts map[string]int) string {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprintf("**%d attacks**, each beside a control that succeeds where nothing stops it. By group: %s. By where\nthe attacker stands: %s.\n",
		len(table), list(groups), list(tiers))
}
