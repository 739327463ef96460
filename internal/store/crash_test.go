package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"carrel/internal/store"
	"carrel/internal/store/storetest"
	"carrel/protocol"
)

// appendForEver is the child: it prints "created" and then the number of every
// event that is flushed, until it is killed.
func appendForEver(path string) int {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{URL: "sqlite:" + path})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if _, _, err := s.CreateRun(ctx, storetest.NewRun("run_1", "ann")); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("created")
	for seq := int64(1); ; seq++ {
		ev := storetest.Event("run_1", seq, protocol.EventTextDelta, protocol.TextDelta{Text: strconv.FormatInt(seq, 10)})
		if err := s.Append(ctx, ev); err != nil {
			fmt.Println(err)
			return 1
		}
		if seq%97 != 0 {
			continue
		}
		if err := s.Flush(ctx, "run_1"); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(seq)
	}
}

func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	for _, lines := range []int{1, 2, 300} {
		t.Run(fmt.Sprintf("after %d acknowledgements", lines), func(t *testing.T) {
			path := newPath(t)
			acknowledged := killAfter(t, path, lines)

			s := openAt(t, path, nil)
			runs, err := s.Unfinished(t.Context())
			if err != nil || len(runs) != 1 || runs[0].RunID != "run_1" {
				t.Fatalf("Unfinished = %+v, %v; want the run that was created", runs, err)
			}
			last, err := s.LastSeq(t.Context(), "run_1")
			if err != nil || last < acknowledged {
				t.Fatalf("LastSeq = %d, %v; %d was acknowledged", last, err, acknowledged)
			}
			checkSeqs(t, s, "run_1", 0, last)
			// The sweep of the next start ends the run.
			appendAll(t, s, storetest.Event("run_1", last+1, protocol.EventRunError, protocol.RunError{Code: protocol.CodeInterrupted}))
			flush(t, s, "run_1")
			if run, err := s.Run(t.Context(), "run_1"); err != nil || run.Status != protocol.StatusInterrupted {
				t.Errorf("Run = %+v, %v; want it interrupted", run, err)
			}
		})
	}
}

// killAfter starts the child, kills it after that many lines, and returns the
// last number it printed.
func killAfter(t *testing.T, path string, lines int) (acknowledged int64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), self)
	child.Env = append(os.Environ(), childVariable+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(out)
	for range lines {
		if !scan.Scan() {
			t.Fatalf("the child ended: %v", child.Wait())
		}
		if scan.Text() == "created" {
			continue
		}
		if acknowledged, err = strconv.ParseInt(scan.Text(), 10, 64); err != nil {
			t.Fatalf("the child says: %s", scan.Text())
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v, want a kill", err)
	}
	return acknowledged
}
