package httpapi

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"carrel/protocol"
)

func TestAttachmentComesAsBodyOrAsForm(t *testing.T) {
	form := strings.ReplaceAll(`--b
Content-Disposition: form-data; name="note"

not a file
--b
Content-Disposition: form-data; name="f"; filename="a.png"
Content-Type: image/png

PNG
--b--
`, "\n", "\r\n")
	tests := []struct {
		name, query, contentType, body string
		status                         int
		want                           protocol.AttachmentInfo // SHA256 is the content that it is of
	}{
		{name: "raw", query: "?name=a.txt", contentType: "text/plain", body: "hi", status: 201, want: protocol.AttachmentInfo{Name: "a.txt", Type: "text/plain", SHA256: "hi"}},
		{name: "raw without a type", body: "hi", status: 201, want: protocol.AttachmentInfo{SHA256: "hi"}},
		{name: "curl's own type", contentType: "application/x-www-form-urlencoded", body: "hi", status: 201, want: protocol.AttachmentInfo{SHA256: "hi"}},
		{name: "form", contentType: "multipart/form-data; boundary=b", body: form, status: 201, want: protocol.AttachmentInfo{Name: "a.png", Type: "image/png", SHA256: "PNG"}},
		{name: "form cut short", contentType: "multipart/form-data; boundary=b", body: form[:len(form)-20], status: 400},
		{name: "form without a file", contentType: "multipart/form-data; boundary=b", body: "--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r\n--b--\r\n", status: 400},
		{name: "form without a boundary", contentType: "multipart/form-data", body: form, status: 400},
		{name: "no type at all", contentType: "/", body: "hi", status: 400},
		{name: "unknown parameter", query: "?nom=a", body: "hi", status: 400},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/v1/users/u/attachments"+test.query, strings.NewReader(test.body))
			if test.contentType != "" {
				r.Header.Set("Content-Type", test.contentType)
			}
			w := httptest.NewRecorder()
			New(newFake(), Options{}).ServeHTTP(w, r)
			var got protocol.AttachmentInfo
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if w.Code != test.status {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			if test.status == 201 && (got.Name != test.want.Name || got.Type != test.want.Type || got.SHA256 != sumOf(test.want.SHA256)) {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}
