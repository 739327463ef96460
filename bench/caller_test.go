package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"carrel/protocol"
)

// caller is an HTTP client with as many connections as it likes.
var caller = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}} //nolint:gochecknoglobals // the benchmark's own, of loopback

// stream sends a message and reads the stream of its events to the end. It tells when
// the first came, and gives each event's data to read, which may be nil.
func stream(t *testing.T, url, user, message string, read func(data []byte)) (first time.Duration) {
	t.Helper()
	body, err := json.Marshal(protocol.ExecuteRequest{UserID: user, Message: message})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/execute", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	first, err = follow(req, began, read)
	if err != nil {
		t.Errorf("a stream for %s: %v", user, err)
	}
	return first
}

func follow(req *http.Request, began time.Time, read func(data []byte)) (first time.Duration, err error) {
	resp, err := caller.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, fmt.Errorf("%s: %s", resp.Status, text)
	}
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	last := ""
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return first, err
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		if first == 0 {
			first = time.Since(began)
		}
		if read != nil {
			read(data)
		}
		last = string(data[:min(len(data), 300)])
	}
	if !strings.Contains(last, string(protocol.EventRunFinished)) {
		return first, fmt.Errorf("it ended with %s", last)
	}
	return first, nil
}

// made is when an event's text was made (standin), if it has one.
func made(data []byte) (time.Time, bool) {
	_, rest, ok := bytes.Cut(data, []byte(`"text":"`))
	if !ok {
		return time.Time{}, false
	}
	digits, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return time.Time{}, false
	}
	ns, err := strconv.ParseInt(string(digits), 10, 64)
	return time.Unix(0, ns), err == nil
}

// order is standin's.
func order(events int, every time.Duration) string {
	return fmt.Sprintf(`{"events":%d,"every":%d}`, events, every)
}

// run runs one command for a user.
func run(t *testing.T, url, user string, args ...string) {
	t.Helper()
	body, err := json.Marshal(protocol.ExecRequest{Command: protocol.Command{Args: args}})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/users/"+user+"/exec", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := caller.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	var result protocol.ExecResult
	if err := json.NewDecoder(resp.Body).Decode(&result); err != nil || resp.StatusCode != http.StatusOK || result.ExitCode != 0 {
		t.Errorf("%q for %s: %s, %+v, %v", args, user, resp.Status, result, err)
	}
}
