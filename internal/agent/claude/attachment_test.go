package claude

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/agent"
	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// The smallest there are, as far as their first bytes tell.
const (
	png = "\x89PNG\r\n\x1a\n, and so on"
	pdf = "%PDF-1.7, and so on"
)

func (g *rig) attach(id, data string) {
	g.t.Helper()
	must(g.t, os.MkdirAll(filepath.Join(g.homeDir, "attachments"), 0o700))
	must(g.t, os.WriteFile(filepath.Join(g.homeDir, "attachments", id), []byte(data), 0o600))
}

func attached(id, mediaType string) func(*agent.Run) {
	return func(r *agent.Run) {
		r.Attachments = append(r.Attachments, protocol.Attachment{ID: id, Type: mediaType})
	}
}

func TestAttachmentsAsTheModelSeesThem(t *testing.T) {
	large := strings.Repeat("x", maxTextBytes+1)
	for _, test := range []struct{ name, mediaType, data, want string }{
		{"image", "image/png", png, "image base64 image/png " + base64.StdEncoding.EncodeToString([]byte(png))},
		{"image without a type", "", png, "image base64 image/png " + base64.StdEncoding.EncodeToString([]byte(png))},
		{"PDF", "application/pdf", pdf, "document base64 application/pdf " + base64.StdEncoding.EncodeToString([]byte(pdf))},
		{"text", "text/plain; charset=utf-8", "some text", "text [An attachment:]\nsome text"},
		{"JSON", "application/json", "{}", "text [An attachment:]\n{}"},
		{"anything else", "application/zip", "PK", "text [The user attached file-123 (application/zip). For the tools it is the file /workspace/attachments/file-123.]"},
		{"text that is none", "text/plain", "\xff", "text [The user attached file-123 (text/plain). For the tools it is the file /workspace/attachments/file-123.]"},
		{"long text", "text/csv", large, "text [The user attached file-123 (text/csv). For the tools it is the file /workspace/attachments/file-123.]"},
		{"empty image", "image/png", "", "text [The user attached file-123 (image/png). For the tools it is the file /workspace/attachments/file-123.]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t, expect(anthropictest.Say("ok"), func(last anthropictest.Message) error {
				c := last.Content[0]
				got := c.Type + " " + c.Text
				if c.Source != nil {
					got = fmt.Sprint(c.Type, " ", c.Source.Type, " ", c.Source.MediaType, " ", c.Source.Data)
				}
				if got != test.want || len(last.Content) != 2 || last.Content[1].Text != "what is this?" {
					return fmt.Errorf("%q, want %q", got, test.want)
				}
				return nil
			}))
			g.attach("file-123", test.data)
			g.ok("what is this?", attached("file-123", test.mediaType))
			if !strings.Contains(test.want, "/workspace/") {
				return
			}
			got, err := os.ReadFile(filepath.Join(g.workspaceDir, "attachments", "file-123"))
			if err != nil || string(got) != test.data {
				t.Errorf("the tools have %d bytes of it, %v", len(got), err)
			}
		})
	}
}

// The transcript names an attachment and does not hold it, so that it stays small;
// the next run's model sees it again, or that it is gone.
func TestAttachmentInALaterRun(t *testing.T) {
	again := anthropictest.Say("two")
	again.Expect = func(q *anthropictest.Request) error {
		if c := q.Messages[0].Content[0]; c.Source == nil || c.Source.MediaType != "image/png" {
			return fmt.Errorf("%+v", c)
		}
		return nil
	}
	gone := anthropictest.Say("three")
	gone.Expect = func(q *anthropictest.Request) error {
		if c := q.Messages[0].Content[0]; c.Text != "[The attachment file-123 is no longer there.]" {
			return fmt.Errorf("%+v", c)
		}
		return nil
	}
	g := newRig(t, anthropictest.Say("one"), again, gone)
	g.attach("file-123", png)
	g.ok("look", attached("file-123", "image/png"))
	transcript, err := os.ReadFile(filepath.Join(g.homeDir, "sessions", "s.jsonl"))
	must(t, err)
	if !strings.Contains(string(transcript), `{"type":"carrel_attachment","id":"file-123","media_type":"image/png"}`) {
		t.Errorf("%s", transcript)
	}
	g.ok("look again")
	must(t, os.Remove(filepath.Join(g.homeDir, "attachments", "file-123")))
	g.ok("and now?")
}

func TestAttachmentThatIsNotThere(t *testing.T) {
	for _, id := range []string{"file-404", "../sessions/s.jsonl", "", strings.Repeat("x", 300), "link", "pipe"} {
		g := newRig(t)
		g.attach("file-123", png)
		secret := filepath.Join(t.TempDir(), "secret")
		must(t, os.WriteFile(secret, []byte("a secret"), 0o600))
		must(t, os.Symlink(secret, filepath.Join(g.homeDir, "attachments", "link")))
		must(t, os.Mkdir(filepath.Join(g.homeDir, "attachments", "pipe"), 0o700))
		o := g.run(t.Context(), "hi", attached(id, "text/plain"))
		if o.err == nil || len(o.events) != 0 {
			t.Errorf("%q: %v %v", id, o.err, o.events)
		}
		if id != "link" && id != "pipe" && protocol.CodeOf(o.err) != protocol.CodeNotFound {
			t.Errorf("%q: %v", id, o.err)
		}
	}
}

// The workspace is the tools'. A link they put where attachments go must not make
// the worker write for them where they cannot: among the sessions, say.
func TestTrapWhereAttachmentsGo(t *testing.T) {
	g := newRig(t)
	g.attach("file-123", "PK")
	must(t, os.Symlink(g.homeDir, filepath.Join(g.workspaceDir, "attachments")))
	if o := g.run(t.Context(), "hi", attached("file-123", "application/zip")); o.err == nil {
		t.Error("it was written")
	}
	g = newRig(t, anthropictest.Say("ok"))
	g.attach("file-123", "PK")
	must(t, os.Mkdir(filepath.Join(g.workspaceDir, "attachments"), 0o700))
	must(t, os.Symlink(filepath.Join(g.homeDir, "new"), filepath.Join(g.workspaceDir, "attachments", "file-123")))
	g.ok("hi", attached("file-123", "application/zip"))
	if entries, err := os.ReadDir(g.homeDir); err != nil || len(entries) != 2 { // attachments and sessions
		t.Errorf("%v %v", entries, err)
	}
}
