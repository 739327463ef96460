// Package spelling measures how far a word is from another, so that who mistypes a
// name can be told the one that was meant.
package spelling

// Distance is the Levenshtein distance in bytes: how many must be put in, taken out or
// changed. It keeps one row of the table.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
