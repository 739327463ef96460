// Package audit keeps the audit log: who had what done, and what was decided of it,
// as JSON objects, one a line, in a file that is only ever added to.
//
//	Write ─▶ rate (of what a worker causes) ─▶ encode, number ─▶ one write(2)
//	           │ too many: counted                 │ fails: counted, told once a minute
//	           ▼                                   ▼
//	         "left_out" line of that user        "lost" line once it can be written again
//
// A line is whole or it is not there: what a full disk takes half of is taken back.
// Its numbers have no gap between a daemon_started line and the next; what is missing
// is told in lines of its own. What is written is the kernel's at once, so a killed
// daemon loses none; it is not synced to the disk, so a host that loses its power may
// lose the last seconds.
//
// The file never grows past its bound: it is renamed to FILE.1, FILE.1 to FILE.2 and so
// on, and the oldest goes. A file that was renamed or removed by somebody else
// (logrotate) is noticed at the next line. A lock on the file keeps a second daemon off.
package audit
