package hook

// unknown stands in a command's text for what is known only when it runs: any
// text, or none. No command has a zero byte in it.
const unknown = '\x00'

// covers reports whether a pattern matches a text whatever its unknown parts turn
// out to be. * matches any bytes.
func covers(pattern, text string) bool {
	// Greedy, going back to the last * only: no worse than len(pattern)*len(text).
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == text[t] && text[t] != unknown:
			p, t = p+1, t+1
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// touches reports whether a pattern can match what a text turns out to be: whether
// there is a text that both describe.
func touches(pattern, text string) bool {
	// here[i]: pattern[:i] and the text so far describe something in common.
	here, next := make([]bool, len(pattern)+1), make([]bool, len(pattern)+1)
	here[0] = true
	spread(here, pattern)
	for t := range len(text) {
		clear(next)
		for i, ok := range here {
			if !ok {
				continue
			}
			switch {
			case text[t] == unknown:
				for j := i; j <= len(pattern); j++ { // it takes as much of the pattern as it likes
					next[j] = true
				}
			case i < len(pattern) && pattern[i] == '*':
				next[i] = true
			case i < len(pattern) && pattern[i] == text[t]:
				next[i+1] = true
			}
			if text[t] == unknown {
				break // the first place covers all later ones
			}
		}
		spread(next, pattern)
		here, next = next, here
	}
	return here[len(pattern)]
}

// spread takes a * in the pattern for nothing.
func spread(at []bool, pattern string) {
	for i := range len(pattern) {
		if at[i] && pattern[i] == '*' {
			at[i+1] = true
		}
	}
}
