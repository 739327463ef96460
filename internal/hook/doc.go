// Package hook decides whether a tool may be used: permission rules, hooks, and
// the question to a person where a rule asks for it.
//
// The jail bounds what tools can do; rules are for what inside of it an operator
// wants to know of or to forbid. A rule against a command of bash is a guard rail:
// a script that was written a moment ago can do the same under another name.
//
// A rule is the name of a tool, or that and a pattern in parentheses:
//
//	bash                 every command
//	bash(git *)          * stands for any text, " *" at the end for none as well
//	write(/workspace/**) a path: * within a name, ** for any directories; one
//	                     without a slash in front is below /workspace
//	mcp__*               tools of others, by name alone
//
// The first of these that holds counts:
//
//	deny rule → no.    ask rule → a person says.    allow rule → yes.
//	else Permissions.Default; without one, "ask" for a tool that allow rules name
//	by pattern, "allow" for others
//
// A command of bash is taken apart (mvdan.cc/sh, in the worker: it costs the
// worker's start 0.7 ms of about 15, and asking the host would cost each call a
// round trip and give the host a parser of hostile text). An allow rule holds only
// if rules allow each of its simple commands as it is written, and nothing in it
// is more than that: no substitution, no redirection into files, no variable set
// in front, no function. A deny or ask rule holds if it matches any of them: by
// the program's name without its directory, behind env, timeout, xargs and the
// like, in sh -c and eval. Where a part is known only when it runs and might match
// a deny or ask rule, a person is asked.
//
// A path is judged twice, as it is written and as links lead it: a deny or ask
// rule holds if it matches either, an allow rule if it matches both.
//
// permission_mode: "default", as above; "accept_edits", where write and edit need
// no person's yes; "plan", where only read, glob and grep may be used; "bypass",
// where nothing needs a person's yes. A deny rule holds in all of them.
//
// A hook before a tool may deny, ask for a person's yes, or change the input; the
// rules then hold for the changed one. A webhook may also say yes where an ask rule
// or the default would have asked; a command may not, for it runs where tools do.
// A hook that fails, does not answer in time, or answers what cannot be read, has
// denied; after a tool that means that its result is withheld.
package hook
