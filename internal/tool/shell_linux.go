package tool

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"carrel/internal/denial"
	"carrel/internal/jail"
)

// shell is one shell process that runs commands one after the other, in a tool
// host of its own. It is used by one goroutine at a time.
//
//	shell's descriptor 0: the script that we write, a line a command
//	                1, 2: output, of the commands and of what they left running; 8 and
//	                      9 are copies, from which each command gets its own
//	                   3: a report at each command's end: number, status, directory
//
// A command is one quoted word of that script, so whatever stands in it (open
// quotes, here-documents, the word "break") ends with it. What it reads is
// /dev/null, and descriptor 3 is closed for it: its output cannot be taken for a
// report. Code that looks for the shell's own copy of the descriptor can fake one;
// it then lies to itself about its own end, and nobody else.
type shell struct {
	process *Process
	script  *io.PipeWriter
	reports chan report
	kill    context.CancelCauseFunc
	number  int // of the last command
}

// report is what the shell says at the end of a command.
type report struct {
	number, status int
	dir            string // "" if it has no name any more
}

// startShell starts a shell in dir, which may be gone. Its output goes to sink
// until the shell ends: at the end of ctx at the latest.
func startShell(ctx context.Context, hosts *Hosts, env []string, dir string, sink func(Stream, string) error) (*shell, error) {
	ctx, kill := context.WithCancelCause(ctx)
	in, script := io.Pipe()
	s := &shell{script: script, reports: make(chan report, 16), kill: kill}
	r := reports{to: s.reports}
	process, err := hosts.Start(ctx, Command{
		Argv:   shellArgv(),
		Env:    env,
		Dir:    jail.WorkspaceDir,
		Stdin:  in,
		Output: sink,
		Report: r.take,
	})
	if err != nil {
		kill(nil)
		return nil, err
	}
	s.process = process
	// An error says that the shell has ended, and so will every command's.
	_, _ = fmt.Fprintf(script, "exec 8>&1 9>&2; cd -- %s 2>/dev/null || echo 'carrel: the directory of the last command is gone; this is '\"$PWD\" >&2\n", quote(dir))
	return s, nil
}

// shellArgv is bash without anybody's start files, or what else there is. The
// sandbox's /bin is the host's and read-only: the answer stands.
func shellArgv() []string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return []string{"/bin/bash", "--noprofile", "--norc"}
	}
	return []string{"/bin/sh"}
}

// run runs one command and waits for its report; ok is false if the shell ended
// instead. When ctx ends the shell is killed, and everything with it.
func (s *shell) run(ctx context.Context, command string) (r report, ok bool) {
	stop := context.AfterFunc(ctx, func() { s.kill(context.Cause(ctx)) })
	defer func() {
		if !stop() { // too late for a report: the shell is being killed
			<-s.process.Done()
		}
	}()
	s.number++
	// "set" takes back what would make this line itself end the shell or show up
	// in the output. Redirections of an eval are undone after it, and with them
	// what an exec in the command did to our descriptors.
	line := fmt.Sprintf("eval %s </dev/null >&8 2>&9 3>&- 8>&- 9>&-; { printf '%%d %%d ' %d \"$?\"; set +envx; pwd -P; printf '\\000'; } >&3 2>/dev/null\n",
		quote(command), s.number)
	if _, err := io.WriteString(s.script, line); err != nil {
		<-s.process.Done()
		return report{}, false
	}
	for {
		select {
		case r := <-s.reports:
			if r.number != s.number {
				continue // an earlier command's child may have kept the descriptor
			}
			s.process.Drain()
			return r, true
		case <-s.process.Done():
			return report{}, false
		}
	}
}

// end kills the shell and all it started, and waits until they are gone.
func (s *shell) end() {
	s.kill(context.Canceled)
	_, _ = s.process.Wait()
}

// reports puts reports together from the pieces that they come in.
type reports struct {
	to   chan report
	rest []byte
}

// maxReportBytes bounds what somebody else may write there: a path and two numbers.
const maxReportBytes = 8 << 10

func (p *reports) take(piece []byte) {
	p.rest = append(p.rest, piece...)
	for {
		one, rest, found := bytes.Cut(p.rest, []byte{0})
		if !found {
			break
		}
		p.rest = append([]byte(nil), rest...)
		if r, err := parseReport(string(one)); err == nil {
			select {
			case p.to <- r:
			default: // nobody runs a command: no report is asked for
			}
		}
	}
	if len(p.rest) > maxReportBytes {
		p.rest = nil
	}
}

func parseReport(text string) (report, error) {
	number, rest, _ := strings.Cut(text, " ")
	status, dir, _ := strings.Cut(rest, " ")
	var r report
	var err error
	if r.number, err = strconv.Atoi(number); err != nil {
		return report{}, err
	}
	if r.status, err = strconv.Atoi(status); err != nil {
		return report{}, err
	}
	if dir = strings.TrimSuffix(dir, "\n"); strings.HasPrefix(dir, "/") {
		r.dir = dir
	}
	return r, nil
}

// quote makes one word of the shell of any text without a zero byte.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// listener gives the shell's output to the command that runs, and keeps what
// comes between two commands, from children in the background, for the next one.
type listener struct {
	mu      sync.Mutex
	current *stream
	between *Output
}

func (l *listener) write(s Stream, text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil {
		l.between.WriteString(text)
		return nil
	}
	return l.current.write(s, text)
}

// listen makes c the one who gets the output; nil ends that.
func (l *listener) listen(c *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = c
	if c != nil && l.between.Size() > 0 {
		c.kept.WriteString(l.between.String())
		l.between = NewOutput(l.between.limit)
	}
}

// stream keeps the ends of a command's output and passes it on, up to a size: a
// store keeps every event, and one command must not fill it.
type stream struct {
	kept   *Output
	words  denial.Watch
	pass   func(Stream, string) error // may be nil
	passed int
}

// maxStreamBytes bounds what one call streams.
const maxStreamBytes = 1 << 20

func (s *stream) write(from Stream, text string) error {
	s.kept.WriteString(text)
	s.words.Write(from == Stderr, text)
	if s.pass == nil || s.passed > maxStreamBytes {
		return nil
	}
	if s.passed += len(text); s.passed > maxStreamBytes {
		text = fmt.Sprintf("\n[carrel: output past %d MiB is counted but not shown]\n", maxStreamBytes>>20)
	}
	return s.pass(from, text)
}
