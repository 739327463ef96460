// Command go shows one turn of a chat: a file goes up, an agent works, its answer is
// shown as it comes.
//
//	go run ./examples/go [-u USER] [-a AGENT] [-m MODEL] MESSAGE
//
// CARREL_URL and CARREL_API_KEY say where the daemon is and who asks.
package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"carrel/client"
	"carrel/protocol"
)

const plan = "roof,2026-05-01\ndoor,2026-03-01\nattic,2026-04-01\n"

func main() {
	flags := flag.NewFlagSet("chat", flag.ExitOnError)
	user := flags.String("u", "ana", "user")
	agent := flags.String("a", "", "claude or shell; else the daemon's own")
	model := flags.String("m", "", "model")
	_ = flags.Parse(os.Args[1:]) // exits by itself
	req := protocol.ExecuteRequest{
		UserID:  *user,
		Message: flags.Arg(0), // a script, where the agent is shell
		Config:  protocol.RunConfig{Agent: *agent, Model: *model},
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := turn(ctx, req); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// turn is one message of a user, with a file before it and a look at what came of it.
func turn(ctx context.Context, req protocol.ExecuteRequest) error {
	c, err := client.New(
		cmp.Or(os.Getenv("CARREL_URL"), "http://127.0.0.1:8642"),
		client.Options{Key: client.Key(os.Getenv("CARREL_API_KEY"))},
	)
	if err != nil {
		return err
	}
	defer c.Close()

	stored, err := c.PutFile(ctx, req.UserID, "plan.csv", strings.NewReader(plan), int64(len(plan)))
	if err != nil {
		return err
	}
	fmt.Printf("put plan.csv: %d bytes\n", stored.Size)

	keyboard := bufio.NewReader(os.Stdin)
	for event, err := range c.ExecuteStream(ctx, req, client.ExecuteOptions{}) {
		if err != nil {
			return err
		}
		if err := show(ctx, c, event, keyboard); err != nil {
			return err
		}
	}

	counted, err := c.Exec(ctx, req.UserID, protocol.ExecRequest{
		Command: protocol.Command{Args: []string{"wc", "-l", "plan.csv"}},
	})
	if err != nil {
		return err
	}
	fmt.Print("exec wc -l plan.csv: ", counted.Stdout)

	file, err := c.OpenFile(ctx, req.UserID, "plan.csv", client.OpenOptions{})
	if err != nil {
		return err
	}
	defer file.Close()
	fmt.Println("get plan.csv:")
	_, err = io.Copy(os.Stdout, file)
	return err
}

// show shows one event to a person, and asks what the run asks.
func show(ctx context.Context, c *client.Client, event protocol.Event, keyboard *bufio.Reader) error {
	data, err := event.Decode()
	if err != nil {
		return err
	}
	switch d := data.(type) {
	case protocol.TextDelta:
		fmt.Print(d.Text)
	case protocol.ToolCallStart:
		fmt.Printf("\n[%s]\n", d.Name)
	case protocol.ToolCallResult:
		how := "ok"
		if d.IsError {
			how = "failed"
		}
		fmt.Printf("[%s %s] %s\n", d.Name, how, strings.TrimSpace(d.Result))
	case protocol.ApprovalRequested:
		fmt.Printf("%s wants %s: allow? [y/N] ", d.Tool, d.Input)
		decision := protocol.ApprovalDecision{Decision: protocol.Deny}
		if typed, _ := keyboard.ReadString('\n'); strings.TrimSpace(typed) == "y" {
			decision.Decision = protocol.Allow
		}
		return c.Approve(ctx, event.RunID, d.ApprovalID, decision)
	case protocol.ApprovalResolved:
		fmt.Printf("[%s]\n", d.Decision)
	case protocol.Result:
		fmt.Printf("\nfinished: %d tokens, $%.4f, %.1f s\n", d.TokensUsed, d.Usage.CostUSD, d.Duration)
	case protocol.RunError:
		return d.Err()
	}
	return nil
}
