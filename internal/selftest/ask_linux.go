package selftest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"
)

// request is what a caller sends.
type request struct {
	key          string // "" = none
	method, path string
	body         string
	header       http.Header
}

// answerBytes is how much of an answer is looked at.
const answerBytes = 1 << 20

// ask sends a request and gives the status and the beginning of the answer.
func (d *daemon) ask(ctx context.Context, r request) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := d.send(ctx, r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	return resp.StatusCode, string(content), err
}

// send sends a request on a connection of its own.
func (d *daemon) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, d.url+r.path, strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, r.header)
	if host := r.header.Get("Host"); host != "" {
		req.Host = host
	}
	if r.key != "" {
		req.Header.Set("Authorization", "Bearer "+r.key)
	}
	c := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 10 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.Do(req)
}

// granted asks, and succeeds if the daemon does what was asked.
func (d *daemon) granted(ctx context.Context, r request) error {
	status, body, err := d.ask(ctx, r)
	if err != nil {
		return err
	}
	if status >= http.StatusMultipleChoices {
		return fmt.Errorf("%d %.200s", status, body)
	}
	return nil
}
