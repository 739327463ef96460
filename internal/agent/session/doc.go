// Package session keeps transcripts: what was said in a session, so that any
// later worker can go on with it.
//
// A session is one file below a home, sessions/<id>.jsonl, a JSON object a line:
//
//	{"time":…,"run_id":…,"role":"user","content":[block…]}
//	{"time":…,"run_id":…,"role":"assistant","content":[block…],"tokens":1234}
//	{"time":…,"run_id":…,"summary":"…","replaces":12}
//
// A block is one of the Messages API's, or an attachment, which stands for a
// file of the home. A summary takes the place of the first "replaces" messages
// of the conversation, as it then stood, for the model; the file keeps them.
//
// Lines are only ever appended, all of a turn (the answer of the model and what
// its tools gave) in one write that is synced. A worker that dies leaves at
// worst a torn last line, or an answer whose tool results are missing. [Store.Open]
// cuts off the one and completes the other, so that what it gives is always a
// conversation the API takes. Any other line that cannot be read is an error:
// nothing is skipped in silence.
//
// [List], [Read], [Delete] and [Fork] may be called by the host half on a home
// that a sandbox owns. They take an [os.Root], so no link leads out of it; they
// open nothing but regular files and read no more than [MaxBytes].
package session
