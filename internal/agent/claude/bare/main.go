// Command bare is the SDK in a process of its own, without a daemon, a jail or a
// broker: what the benchmark of a first text holds the whole chain against.
//
//	bare URL FILE
//
// For each line on stdin it sends the file's content, a request of the chain's own,
// to the Messages API at URL, and writes a line as soon as the first text is there.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: bare URL FILE")
	}
	body, err := os.ReadFile(args[1]) //nolint:gosec // a benchmark names the file
	if err != nil {
		return err
	}
	client := anthropic.NewClient(
		option.WithoutEnvironmentDefaults(),
		option.WithoutOpenTelemetry(),
		option.WithBaseURL(args[0]),
		option.WithHTTPClient(&http.Client{Transport: &http.Transport{}}),
		option.WithMaxRetries(0),
		option.WithRequestBody("application/json", body),
	)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := ask(ctx, &client, out); err != nil {
			return err
		}
	}
	return lines.Err()
}

// ask reads an answer to its end, and tells of its first text.
func ask(ctx context.Context, client *anthropic.Client, out io.Writer) error {
	stream := client.Messages.NewStreaming(ctx, anthropic.MessageNewParams{})
	defer func() { _ = stream.Close() }()
	texts := 0
	for stream.Next() {
		if e := stream.Current(); e.Type != "content_block_delta" || e.Delta.Type != "text_delta" {
			continue
		}
		if texts++; texts == 1 {
			if _, err := fmt.Fprintln(out, "first"); err != nil {
				return err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "texts", texts)
	return err
}
