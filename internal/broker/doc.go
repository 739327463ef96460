// Package broker is the one door out of a sandbox, and the only room that can open
// a key.
//
//	worker ── HTTP/2 over a socketpair, no key ──► Link ──► Broker ── HTTPS, with the key ──► model API
//	         (package door)                        │         │
//	                              whose, which run ┘         └ allowed? within budget? then forward,
//	                                                           count tokens as the answer goes by, charge
//
// Whose a request is the broker knows by the link, which belongs to one worker and
// so to one user. Which run it belongs to the worker says, in a header; that is
// believed only of a run that is going on this link, so that a lie stays within one
// user's own runs.
//
// What a sandbox may ask for is an exact list of methods and targets. Nothing is
// normalised: a target that is not on the list byte for byte is refused, so no way
// of writing "..", a query or another host can mean something else here than there.
// Of a request's headers only those on a list go on; no credential is on it. The key
// is added last, and goes into no answer, log line or error.
//
// # Budgets
//
// A request is refused once what it would be paid from is used up: the run's, or
// the user's of the day (UTC). Nothing is reserved ahead: an answer that passes the
// budget while it streams is let to its end, and so are others under way then, at
// most [maxRequests] a user. Figures are counted before the bytes that carry them
// are handed on, so a worker that has read an answer cannot ask again at the price
// before it.
//
// A worker cannot spend unseen by going away: an answer that nobody waits for any
// more is read on until its price is known, then dropped, and what a cut stream had
// sent by then is estimated.
//
// # Goroutines and locks
//
// A Broker has one goroutine, which stores charges; a Link has those of an
// http.Server with one connection. [Link.Close] ends its own, [Broker.Close] all,
// and both wait, except that a link does not wait for answers that are still being
// priced. One lock matters, account.mu, and under it no other is taken.
package broker
