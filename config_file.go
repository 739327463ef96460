package carrel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// maxConfigFileBytes bounds the configuration file; one with every key set has
// a few thousand bytes.
const maxConfigFileBytes = 1 << 20

// fileLine is one KEY=value of a file.
type fileLine struct {
	number     int // from 1
	key, value string
}

// readConfigFile reads the file called name. The error tells that there was
// nothing to read; the faults tell of single lines, and their Source names the
// file.
func readConfigFile(name string) ([]fileLine, []Fault, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration file: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxConfigFileBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration file: %w", err)
	}
	if len(text) > maxConfigFileBytes {
		return nil, nil, fmt.Errorf("configuration file is longer than %d bytes", maxConfigFileBytes)
	}
	lines, faults := parseConfigFile(string(text))
	for i := range faults {
		faults[i].Source = name + ":" + faults[i].Source
	}
	return lines, faults, nil
}

// parseConfigFile reads lines of KEY=value. Blank lines and those that start
// with # are skipped. A value may stand in single quotes, taken as it is, or in
// double quotes, in which \" and \\ stand for " and \; bare, it ends before a #
// that follows white space. A fault's Source is the number of its line, and it
// repeats nothing of the line, which may hold a secret.
func parseConfigFile(text string) ([]fileLine, []Fault) {
	var lines []fileLine
	var faults []Fault
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, err := parseConfigLine(line)
		if err != nil {
			faults = append(faults, Fault{Source: fmt.Sprint(number), Reason: err.Error()})
			continue
		}
		lines = append(lines, fileLine{number, key, value})
	}
	return lines, faults
}

func parseConfigLine(line string) (key, value string, err error) {
	if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
		return "", "", errors.New("is not UTF-8 text")
	}
	key, rest, found := strings.Cut(line, "=")
	key = strings.TrimSpace(key)
	if !found || !isEnvName(key) {
		return "", "", errors.New("is not of the form KEY=value")
	}
	rest = strings.TrimSpace(rest)
	if rest == "" || (rest[0] != '"' && rest[0] != '\'') {
		return key, cutComment(rest), nil
	}
	value, rest, err = unquote(rest)
	if err != nil {
		return "", "", err
	}
	if rest = strings.TrimSpace(rest); rest != "" && rest[0] != '#' {
		return "", "", errors.New("has text after the closing quote")
	}
	return key, value, nil
}

// cutComment drops what follows a # at the start or after white space.
func cutComment(s string) string {
	for i := range len(s) {
		if s[i] == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\t') {
			return strings.TrimSpace(s[:i])
		}
	}
	return s
}

// unquote takes the quoted text at the start of s; rest is what follows it.
func unquote(s string) (value, rest string, err error) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && quote == '"':
			i++
			if i == len(s) || (s[i] != '"' && s[i] != '\\') {
				return "", "", errors.New(`has a \ that neither " nor \ follows (single quotes take text as it is)`)
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("has a quote that is not closed")
}

// isEnvName reports whether s is a name for the environment: letters, digits and
// underscores, no digit first (POSIX, Base Definitions 8.1).
func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '_':
		case c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}
