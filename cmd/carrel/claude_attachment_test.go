package main

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// upload gives a user a file.
func (s *stage) upload(user, name, mediaType string, content []byte) protocol.AttachmentInfo {
	s.t.Helper()
	status, body := s.post("/v1/users/"+user+"/attachments?name="+name, string(content), http.Header{"Content-Type": {mediaType}})
	var info protocol.AttachmentInfo
	if err := json.Unmarshal(body, &info); err != nil || status/100 != 2 {
		s.t.Fatalf("upload %s: status %d, %s", name, status, body)
	}
	return info
}

func pngImage(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipFile(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	archive := zip.NewWriter(&b)
	if _, err := archive.Create("inside.txt"); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An image and a PDF reach the model as such, a text as text, anything else as a
// path that the tools can read.
func TestAttachmentsReachTheModelInTheFormItCanUse(t *testing.T) {
	picture, archive := pngImage(t), zipFile(t)
	pdf := []byte("%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n")
	var zipID string
	seen := func(content []anthropictest.Content) error {
		if len(content) != 5 {
			return fmt.Errorf("%d blocks", len(content))
		}
		for i, want := range []struct {
			kind, mediaType string
			data            []byte
		}{{"image", "image/png", picture}, {"document", "application/pdf", pdf}} {
			c := content[i]
			if c.Type != want.kind || c.Source.MediaType != want.mediaType || c.Source.Data != base64.StdEncoding.EncodeToString(want.data) {
				return fmt.Errorf("block %d is %s, %+v", i, c.Type, c.Source)
			}
		}
		if !strings.Contains(content[2].Text, "line of text") || !strings.Contains(content[3].Text, "/workspace/attachments/"+zipID) {
			return fmt.Errorf("text is %q, zip %q", content[2].Text, content[3].Text)
		}
		return nil
	}
	script := []anthropictest.Turn{
		{Expect: func(q *anthropictest.Request) error { return seen(q.Last().Content) }},
		{Expect: func(q *anthropictest.Request) error { return compare(q.Last().Results(), []string{"PK"}) }},
		// A later run of the session has them too.
		{Expect: func(q *anthropictest.Request) error { return seen(q.Messages[0].Content) }},
	}
	script[1].Reply, script[2].Reply = anthropictest.Say("Seen.").Reply, anthropictest.Say("Still.").Reply
	script[0].Reply.Blocks = []anthropictest.Block{bash("t1", "head -c 2 attachments/file_*")}
	s := play(t, script)
	var given []protocol.Attachment
	for _, f := range []struct {
		name, mediaType string
		content         []byte
	}{
		{"p.png", "image/png", picture},
		{"d.pdf", "application/pdf", pdf},
		{"n.txt", "text/plain", []byte("a line of text\n")},
		{"a.zip", "application/zip", archive},
	} {
		info := s.upload("ana", f.name, f.mediaType, f.content)
		given = append(given, protocol.Attachment{ID: info.ID})
		zipID = info.ID // of the last one
	}
	if got := s.say("ana", "look", func(r *protocol.ExecuteRequest) { r.Attachments = given }); got.Content != "Seen." {
		t.Errorf("%+v", got)
	}
	if got := s.say("ana", "and now?"); got.Content != "Still." {
		t.Errorf("%+v", got)
	}
	s.stop()
}

func TestAttachmentThatIsNotTheUsersIsNotFound(t *testing.T) {
	s := play(t, nil)
	id := s.upload("bob", "his.txt", "text/plain", []byte("his")).ID
	for _, asked := range []string{id, "file-123", "file_01ARZ3NDEKTSV4RRFFQ69G5FAV"} {
		status, body := s.post("/v1/execute", `{"user_id":"ana","message":"look","attachments":[{"id":"`+asked+`"}]}`, nil)
		if status != http.StatusNotFound || !strings.Contains(string(body), `"not_found"`) {
			t.Errorf("%s: status %d, %s", asked, status, body)
		}
	}
	for _, asked := range []string{"../" + id, "../../bob/home/attachments/" + id} {
		status, body := s.post("/v1/execute", `{"user_id":"ana","message":"look","attachments":[{"id":"`+asked+`"}]}`, nil)
		if status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("%s: status %d, %s", asked, status, body)
		}
	}
	s.stop()
}
