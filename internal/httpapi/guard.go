package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"carrel/protocol"
)

// guardBrowser refuses what a foreign web page could make somebody's browser send.
//
//   - DNS rebinding: the page's own name resolves to 127.0.0.1, so the browser
//     takes the answer for the page's own. The Host header still holds the name.
//     Where there is a sign-in, such a page has no key, and the daemon may have
//     names that it does not know of; so only without one the Host must be ours.
//   - Cross-site request forgery: the page sends a request here that needs no
//     preflight (a POST whose body has no Content-Type is one). Sec-Fetch-Site
//     or Origin tell; programs other than browsers send neither.
func (a *api) guardBrowser(r *http.Request) error {
	if a.opts.Identify == nil && !a.opts.Loopback {
		return nil // who embeds the API so has its own guards
	}
	if a.opts.Identify == nil && !isLoopbackHost(r.Host) {
		return protocol.Errorf(protocol.CodeForbidden,
			"the Host header names another host: this daemon answers only to localhost, 127.0.0.0/8 and [::1]")
	}
	if err := a.crossOrigin.Check(r); err != nil {
		return protocol.Errorf(protocol.CodeForbidden,
			"a page of another origin sent this request: this daemon changes nothing for it")
	}
	return nil
}

// isLoopbackHost reports whether a Host header, with or without a port, means
// this machine: localhost, 127.0.0.0/8 or [::1].
func isLoopbackHost(host string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return false
		}
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]" // SplitHostPort took the brackets off
		}
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		addr, err := netip.ParseAddr(host[1 : len(host)-1])
		return err == nil && addr == netip.IPv6Loopback()
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Is4() && addr.IsLoopback()
}
