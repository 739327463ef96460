package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
)

// What a screen writes besides text (ECMA-48 §8.3; DECAWM of the VT100, without which a
// line of progress that is too long would wrap, and could not be erased).
const (
	eraseLine = "\r\x1b[K"
	wrapOff   = "\x1b[?7l"
	wrapOn    = "\x1b[?7h"
	dim       = "\x1b[2m"
	red       = "\x1b[31m"
	plain     = "\x1b[0m"
)

const (
	// frameTime is how often the line of progress is drawn anew.
	frameTime = 120 * time.Millisecond
	// maxState bounds it; wider than any terminal.
	maxState = 400
)

// screen shows a run: its text, and below it, where standard error is a terminal, one
// line that says what goes on. All that is written passes through its outputs, so that
// the line is out of the way. A screen with that line has a goroutine, which close ends
// and waits for.
type screen struct {
	stdout, stderr screenStream
	isLive         bool // it has the line of progress
	hasColour      bool
	began          time.Time
	ticks          *time.Ticker
	closing, ended chan struct{}
	closeOnce      sync.Once

	mu      sync.Mutex
	state   string // what goes on; empty: nothing to say
	ending  string // the same, whatever else goes on
	midLine bool   // the cursor stands behind text
	isDrawn bool
	holds   int // questions that wait at the cursor
	frame   int
}

// newScreen makes a screen of out; isQuiet: without progress and colours in any case.
func newScreen(out *output, isQuiet bool) *screen {
	s := &screen{began: time.Now(), closing: make(chan struct{}), ended: make(chan struct{})}
	term := os.Getenv("TERM")
	onTerminal := isTerminal(out.stderr)
	// What reads a pipe may have the terminal to itself, as a pager has.
	s.isLive = onTerminal && !isQuiet && term != "" && term != "dumb" && !isPipe(out.stdout)
	s.hasColour = s.isLive && os.Getenv("NO_COLOR") == ""
	// Text elsewhere than where standard error goes leaves that one's cursor alone.
	s.stdout = screenStream{s: s, to: out.harmless().stdout, isHere: isTerminal(out.stdout) == onTerminal}
	s.stderr = screenStream{s: s, to: out.harmless().stderr, isHere: true}
	if !s.isLive {
		close(s.ended)
		return s
	}
	s.ticks = time.NewTicker(frameTime)
	go s.animate(out.stderr)
	return s
}

func isPipe(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// animate draws the line of progress until close.
func (s *screen) animate(terminal io.Writer) {
	defer close(s.ended)
	for {
		select {
		case <-s.closing:
			s.mu.Lock()
			s.erase()
			s.mu.Unlock()
			return
		case <-s.ticks.C:
			s.mu.Lock()
			s.draw(terminal)
			s.mu.Unlock()
		}
	}
}

// draw needs mu.
func (s *screen) draw(terminal io.Writer) {
	state := s.state
	if s.ending != "" {
		state = s.ending
	}
	if state == "" || s.midLine || s.holds > 0 {
		return
	}
	if state = oneLine(state); len(state) > maxState {
		state = cut(state, maxState)
	}
	const frames = `-\|/`
	s.frame = (s.frame + 1) % len(frames)
	line := fmt.Sprintf("%c %s  %s", frames[s.frame], span(time.Since(s.began)), state)
	if s.hasColour {
		line = dim + line + plain
	}
	_, _ = io.WriteString(terminal, eraseLine+wrapOff+line+wrapOn)
	s.isDrawn = true
}

// erase takes the line of progress away; it needs mu.
func (s *screen) erase() {
	if s.isDrawn {
		_, _ = s.stderr.raw().Write([]byte(eraseLine))
		s.isDrawn = false
	}
}

// close takes the line of progress away for good. What is written later is shown.
func (s *screen) close() {
	if !s.isLive {
		return
	}
	s.closeOnce.Do(func() {
		s.ticks.Stop()
		close(s.closing)
	})
	<-s.ended
}

// leave takes the line of progress away before the program ends, unless somebody is in
// the middle of writing: it may be blocked for ever. Nothing is written afterwards.
func (s *screen) leave() {
	if s.mu.TryLock() {
		s.erase()
	}
}

// set says what goes on.
func (s *screen) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	if state == "" {
		s.erase()
	}
}

// end says what goes on from here, whatever set says. Where there is no line of progress
// it is said once, in a line of its own.
func (s *screen) end(state string) {
	if !s.isLive {
		_ = s.line("", "carrel: "+state)
		return
	}
	_ = s.fresh() // a person waits for an answer, wherever the text stands
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = state
}

// fresh begins a new line unless one has just begun.
func (s *screen) fresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.midLine {
		return nil
	}
	s.midLine = false
	_, err := io.WriteString(s.stderr.raw(), "\n")
	return err
}

// hold keeps the line of progress away while a question waits at the cursor, until as
// many releases have come.
func (s *screen) hold() { s.change(1) }

func (s *screen) release() { s.change(-1) }

func (s *screen) change(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = max(0, s.holds+by)
	if s.holds > 0 {
		s.erase()
	}
}

// typed tells that a person has ended the line at the cursor.
func (s *screen) typed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.midLine = false
}

// line writes lines of their own to standard error, in a colour where there are any.
// They hold other people's words: a terminal is not the only place where they could
// mislead.
func (s *screen) line(colour, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	text = printable(strings.TrimSuffix(text, "\n"))
	if s.hasColour && colour != "" {
		text = colour + text + plain
	}
	if s.midLine {
		text = "\n" + text
	}
	s.midLine = false
	_, err := io.WriteString(s.stderr.raw(), text+"\n")
	return err
}

// screenStream is one of a screen's two outputs.
type screenStream struct {
	s      *screen
	to     io.Writer // shows a sandbox's text harmlessly
	isHere bool      // what is written moves standard error's cursor
}

// raw is the stream for what the screen itself writes.
func (w *screenStream) raw() io.Writer {
	if t, ok := w.to.(terminal); ok {
		return t.w
	}
	return w.to
}

func (w *screenStream) Write(text []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if len(text) == 0 {
		return 0, nil
	}
	if w.isHere {
		w.s.erase()
		w.s.midLine = text[len(text)-1] != '\n'
	}
	return w.to.Write(text)
}
