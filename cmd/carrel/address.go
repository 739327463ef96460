package main

import (
	"errors"
	"fmt"
	"net"

	"carrel/client"
)

// address says which running daemon, for the commands that are about one.
type address struct {
	URL     string `default:"http://127.0.0.1:8642" env:"CARREL_URL" help:"Address of the daemon (${default} if left out)." placeholder:"URL"`
	KeyFile string `help:"File that holds the API key, in place of CARREL_API_KEY." placeholder:"FILE" type:"path"`
}

func (a address) open() (*client.Client, error) {
	key, err := readKey(a.KeyFile)
	if err != nil {
		return nil, err
	}
	return client.New(a.URL, client.Options{Key: key})
}

// explain says of an error whether there is no daemon at all, and what to do then.
func (a address) explain(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return fmt.Errorf("no daemon at %s: start one by carrel serve, or name it by --url: %w", a.URL, e.Err)
	}
	return err
}
