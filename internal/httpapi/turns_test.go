package httpapi

import (
	"fmt"
	"testing"
	"testing/synctest"
)

// A transcript may have 64 MiB, and its answer stays in memory until it is read. A
// user's readers that stand still must not hold more than one, nor keep others' back.
func TestOneTranscriptOfAUserIsAnsweredAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		l, stop := servePipes(t, New(f, Options{}))
		get := func(user string) *pipeClient {
			return connect(t, l, fmt.Sprintf("GET /v1/users/%s/sessions/%s HTTP/1.1", user, largeSession))
		}
		read := func() int {
			synctest.Wait()
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.largeRead
		}
		var still []*pipeClient
		for range 5 {
			still = append(still, get("ana"))
		}
		if n := read(); n != 1 {
			t.Errorf("%d transcripts are held for readers that stand still", n)
		}
		still = append(still, get("bob"))
		if n := read(); n != 2 {
			t.Errorf("with another user's %d are read", n)
		}
		pass(3 * defaultSlowReader) // each reader that is cut off makes room for the next
		if n := read(); n < 4 {
			t.Errorf("after a while %d are read", n)
		}
		before := read()
		for i := range 2 * maxAnswers {
			still = append(still, get(fmt.Sprint("user", i)))
		}
		if n := read() - before; n > maxAnswers {
			t.Errorf("%d more transcripts are held at one time", n)
		}
		for _, c := range still {
			_ = c.Close()
		}
		stop()
	})
}
