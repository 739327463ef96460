package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"carrel"
	"carrel/internal/keyring"
)

// keyCmd looks after the file of API keys. A running daemon sees each change.
type keyCmd struct {
	Add    keyAddCmd    `cmd:"" help:"Make a key and print it, this once."`
	List   keyListCmd   `cmd:"" help:"Show the names of the keys, and for whom they act."`
	Remove keyRemoveCmd `cmd:"" help:"Take a key away; what it has under way ends."`
}

// keyFile says which file.
type keyFile struct {
	File string `help:"File of API keys (CARREL_API_KEYS_FILE)." placeholder:"FILE" type:"path"`
}

// path is the file itself: the one named here, else the daemon's.
func (f keyFile) path(c *cli) (string, error) {
	if f.File != "" {
		return f.File, nil
	}
	path, err := carrel.ConfigSource{Environ: os.Environ(), File: c.Config, Overrides: c.Set}.Lookup("CARREL_API_KEYS_FILE")
	if err == nil && path == "" {
		err = errors.New("which file of API keys? Name it by --file, or set CARREL_API_KEYS_FILE")
	}
	return path, err
}

type keyAddCmd struct {
	keyFile

	Name string `arg:"" help:"Its name, which the log shows."`
	Role string `help:"admin: acts for everyone; user: for one user alone." enum:"admin,user" required:""`
	User string `help:"Whom a key of role user acts for." placeholder:"ID"`
}

// Run prints the key alone, so that it can be piped to where it belongs.
func (a *keyAddCmd) Run(c *cli, out *output) error {
	path, err := a.path(c)
	if err != nil {
		return err
	}
	secret, err := keyring.Add(path, keyring.Key{Name: a.Name, Role: a.Role, User: a.User})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out.stdout, secret); err != nil {
		return errors.Join(fmt.Errorf("print the key: %w", err), keyring.Remove(path, a.Name)) // nobody has it
	}
	fmt.Fprintf(out.stderr, "This is the only time that the key of %s is shown; %s holds its hash alone.\n", a.Name, path)
	return nil
}

type keyListCmd struct{ keyFile }

func (l *keyListCmd) Run(c *cli, out *output) error {
	path, err := l.path(c)
	if err != nil {
		return err
	}
	keys, err := keyring.List(path)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLE\tUSER")
	for _, k := range keys {
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.Name, k.Role, oneLine(k.User))
	}
	return w.Flush()
}

type keyRemoveCmd struct {
	keyFile

	Name string `arg:"" help:"Its name."`
}

func (r *keyRemoveCmd) Run(c *cli) error {
	path, err := r.path(c)
	if err != nil {
		return err
	}
	return keyring.Remove(path, r.Name)
}
