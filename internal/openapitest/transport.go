package openapitest

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
)

// Transport sends requests by another one and checks every answer that is read to its
// end, or closed before.
type Transport struct {
	Document *Document
	Base     http.RoundTripper
	Report   func(error) // called while the answer is read, for one that is not as documented
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &Exchange{Method: req.Method, URL: req.URL, Request: req.Header}
	if req.GetBody != nil { // not a stream
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		if x.RequestBody, err = io.ReadAll(body); err != nil {
			return nil, err
		}
	}
	resp, err := t.Base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	x.Status, x.Answer, x.Cut = resp.StatusCode, resp.Header, true
	resp.Body = &watched{ReadCloser: resp.Body, resp: resp, transport: t, exchange: x}
	return resp, nil
}

// maxKept bounds what is kept of an answer that is checked; a longer one is taken as if
// it were cut.
const maxKept = 32 << 20

// watched is the body of an answer that is kept while it is read.
type watched struct {
	io.ReadCloser

	resp      *http.Response
	transport *Transport
	exchange  *Exchange
	kept      bytes.Buffer
	checked   bool
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	if room := w.most() - w.kept.Len(); room > 0 {
		w.kept.Write(b[:min(n, room)])
	}
	if errors.Is(err, io.EOF) {
		w.exchange.Cut = w.kept.Len() == maxKept
		w.check()
	}
	return n, err
}

// most is how much is kept: of files next to nothing, for nothing describes them.
func (w *watched) most() int {
	media, _, err := mime.ParseMediaType(w.exchange.Answer.Get("Content-Type"))
	if err == nil && (isJSON(media) || media == "text/event-stream") {
		return maxKept
	}
	return 1
}

func (w *watched) Close() error {
	err := w.ReadCloser.Close()
	w.check()
	return err
}

func (w *watched) check() {
	if w.checked {
		return
	}
	w.checked = true
	w.exchange.Body, w.exchange.Trailer = w.kept.Bytes(), w.resp.Trailer
	if err := w.transport.Document.Check(w.exchange); err != nil {
		w.transport.Report(err)
	}
}
