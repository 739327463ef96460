package main

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"carrel"
)

// completionScripts are what the shells load. Each asks `carrel complete` for the
// candidates, one a line with a tab and its meaning behind it, so that what can be
// completed stands in one place; ":files" stands for the names of files.
//
//go:embed completion
var completionScripts embed.FS

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says what `carrel completion --help` and the man page add.
func (completionCmd) Help() string {
	return "For this session: source <(carrel completion bash), the same with zsh (after compinit), " +
		"or carrel completion fish | source. For all: in the file of the shell that is read at its start."
}

func (c *completionCmd) Run(out *output) error {
	script, err := completionScripts.ReadFile("completion/carrel." + c.Shell)
	if err != nil {
		return err
	}
	_, err = out.stdout.Write(script)
	return err
}

type completeCmd struct {
	Words []string `arg:"" help:"After --: the words behind carrel up to the cursor, the last one unfinished." optional:"" passthrough:""`
}

func (c *completeCmd) Run(k *kong.Context, out *output) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	return printCandidates(out.stdout, candidates(k.Model.Node, words))
}

// candidate is one way to go on with a command line.
type candidate struct{ word, meaning string }

// files stands for all names of files.
const files = ":files"

func printCandidates(to io.Writer, all []candidate) error {
	for _, c := range all {
		if _, err := fmt.Fprintln(to, strings.TrimSuffix(c.word+"\t"+c.meaning, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// candidates tells how to go on with the words, the last of which is unfinished.
func candidates(root *kong.Node, words []string) []candidate {
	if len(words) == 0 {
		return nil
	}
	done, last := words[:len(words)-1], words[len(words)-1]
	isHelp := len(done) > 0 && done[0] == "help"
	if isHelp {
		done = done[1:]
	}
	at, ok := walk(root, done)
	switch {
	case !ok:
		return nil // what stands there is wrong, or no matter of ours
	case isHelp:
		return starting(commands(at.node), last)
	case at.flag != nil:
		return starting(values(at.flag.Value, at.flag.FormatPlaceHolder()), last)
	case strings.HasPrefix(last, "-") && !at.isPast:
		name, value, assigned := strings.Cut(last, "=")
		if !assigned {
			return starting(flags(at.node), last)
		}
		flag := findFlag(at.node, name)
		if flag == nil || flag.IsBool() {
			return nil
		}
		found := starting(values(flag.Value, flag.FormatPlaceHolder()), value)
		for i := range found {
			if found[i].word != files { // which the shells know no prefix for
				found[i].word = name + "=" + found[i].word
			}
		}
		return found
	case at.args < len(at.node.Positional):
		arg := at.node.Positional[at.args]
		return starting(values(arg, arg.Tag.PlaceHolder), last)
	default:
		return starting(commands(at.node), last)
	}
}

// place is where a command line has got to.
type place struct {
	node   *kong.Node
	flag   *kong.Flag // whose value comes next
	args   int        // of the node that are there
	isPast bool       // no flags from here
}

// walk reads finished words. It is not ok where they go on as somebody else's.
func walk(root *kong.Node, words []string) (at place, ok bool) {
	at.node = root
	for _, w := range words {
		switch child := findCommand(at.node, w); {
		case at.flag != nil:
			at.flag = nil
		case at.isPast:
			at.args++
		case w == "--":
			at.isPast = true
		case strings.HasPrefix(w, "-"):
			name, _, assigned := strings.Cut(w, "=")
			flag := findFlag(at.node, name)
			if flag == nil {
				return at, false
			}
			if !assigned && !flag.IsBool() {
				at.flag = flag
			}
		case child != nil:
			at.node, at.args = child, 0
		default:
			at.args++
		}
		if (at.args > 0 || at.isPast) && slices.ContainsFunc(at.node.Positional, func(v *kong.Value) bool { return v.Passthrough }) {
			return at, false // a command of a sandbox, with words of its own
		}
	}
	return at, at.args == 0 || at.args < len(at.node.Positional) || len(at.node.Children) == 0
}

func findCommand(node *kong.Node, name string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// findFlag finds a flag by "--name" or "-n".
func findFlag(node *kong.Node, name string) *kong.Flag {
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			if name == "--"+f.Name || f.Short != 0 && name == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

func commands(node *kong.Node) []candidate {
	var all []candidate
	for _, c := range node.Children {
		if !c.Hidden {
			all = append(all, candidate{c.Name, c.Help})
		}
	}
	return all
}

func flags(node *kong.Node) []candidate {
	var all []candidate
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			all = append(all, candidate{"--" + f.Name, f.Help})
		}
	}
	return all
}

// values are what a flag or an argument may be set to, where that is known here.
func values(v *kong.Value, placeholder string) []candidate {
	var all []candidate
	switch {
	case v.Enum != "":
		for _, value := range v.EnumSlice() {
			all = append(all, candidate{word: value})
		}
	case placeholder == "FILE":
		all = append(all, candidate{word: files})
	case placeholder == "KEY=VALUE":
		for _, k := range (carrel.Config{}).Table() {
			all = append(all, candidate{k.Key + "=", k.Meaning})
		}
	}
	return all
}

// starting keeps the candidates that go on with a word.
func starting(all []candidate, word string) []candidate {
	return slices.DeleteFunc(all, func(c candidate) bool { return c.word != files && !strings.HasPrefix(c.word, word) })
}
