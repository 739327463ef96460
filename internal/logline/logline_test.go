package logline

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func lines(level slog.Level) (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return New(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))), &b
}

func TestLineBearsWhatIsKnownWhenItIsLogged(t *testing.T) {
	log, out := lines(slog.LevelInfo)
	request := With(t.Context(), Fields{UserID: "ana"})
	run := Carry(context.WithoutCancel(request), request)
	log.InfoContext(request, "one")
	Fill(run, Fields{Run: "run_1", Session: "s"})
	log.InfoContext(request, "two", "more", 1)
	Fill(run, Fields{Worker: 7})
	log.With("part", "x").InfoContext(run, "three")
	log.InfoContext(t.Context(), "four")
	log.DebugContext(run, "five")
	want := fmt.Sprintf(`level=INFO msg=one user=%[1]s
level=INFO msg=two more=1 run=run_1 user=%[1]s session=s
level=INFO msg=three part=x run=run_1 user=%[1]s session=s worker=7
level=INFO msg=four
`, User("ana"))
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}

func TestContextWithoutASubjectIsFilledWithNothing(t *testing.T) {
	Fill(t.Context(), Fields{Run: "run_1"})
	log, out := lines(slog.LevelInfo)
	a, b := Carry(t.Context(), t.Context()), Carry(t.Context(), t.Context())
	Fill(a, Fields{Run: "run_1"})
	log.InfoContext(b, "another")
	if strings.Contains(out.String(), "run_1") {
		t.Errorf("two contexts share a subject: %s", out)
	}
}

func TestLineIsBoundedAndOne(t *testing.T) {
	log, out := lines(slog.LevelInfo)
	log.InfoContext(With(t.Context(), Fields{Run: "x\ny" + strings.Repeat("z", 1<<20), Session: "\"} worker=1"}), "line")
	if s := out.String(); strings.Count(s, "\n") != 1 || len(s) > 1000 {
		t.Errorf("%d bytes: %.200s", len(s), s)
	}
}

func TestUserIsAHash(t *testing.T) {
	if User("ana") != "24d4b96f58da" || User("ana") == User("bob") {
		t.Errorf("ana is %s", User("ana"))
	}
}

func TestSubjectIsFilledAndReadAtOnce(t *testing.T) {
	log, _ := lines(slog.LevelInfo)
	ctx := With(t.Context(), Fields{})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			Fill(ctx, Fields{Worker: uint64(i + 1), Run: "r"})
			log.InfoContext(ctx, "line")
		})
	}
	group.Wait()
}
