package broker

import (
	"net/http"
	"strings"
)

// requestHeaders are what goes on of a request. Whatever else the caller sent
// stays here: credentials of any kind (x-api-key, authorization, cookie, proxy-…),
// what would speak for another address (forwarded, x-forwarded-…, host), what is
// between two ends of one connection (connection, te, upgrade, …).
var requestHeaders = listOf("Accept", "Anthropic-Beta", "Anthropic-Version", "Content-Type", "User-Agent")

// answerHeaders are what comes back of an answer; no cookie does, and no place to
// be redirected to.
var answerHeaders = listOf("Cache-Control", "Content-Length", "Content-Type", "Date", "Request-Id", "Retry-After", "Retry-After-Ms", "X-Should-Retry")

// The clients' own headers, which tell how they were built, and those in which the
// API tells what is left of its limits.
const (
	clientPrefix = "X-Stainless-"
	limitsPrefix = "Anthropic-Ratelimit-"
)

func listOf(names ...string) map[string]bool {
	list := make(map[string]bool, len(names))
	for _, name := range names {
		list[http.CanonicalHeaderKey(name)] = true
	}
	return list
}

// only returns the headers that are on the list or have the prefix. net/http has
// brought names to their canonical form.
func only(h http.Header, list map[string]bool, prefix string) http.Header {
	kept := make(http.Header, len(list))
	for name, values := range h {
		if list[name] || strings.HasPrefix(name, prefix) {
			kept[name] = values
		}
	}
	return kept
}
