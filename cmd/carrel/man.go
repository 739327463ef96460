package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"carrel"
)

type manCmd struct{}

// Help says what `carrel man --help` and the man page add.
func (manCmd) Help() string { return "To read it: carrel man | man -l -" }

func (manCmd) Run(out *output) error {
	// A page that holds for everybody names nobody.
	parser, err := newParser(&cli{}, out, "$USER", func(int) {})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out.stdout, manPage(parser.Model))
	return err
}

const manAbout = `carrel gives each user of a product a jailed worker process in which that
user's AI agent runs. carrel serve is the daemon, which a product talks to over HTTP. run,
exec and files do one thing, in this process, or by a daemon that is named by --url; ps and
logs look at a daemon.

What comes out of a sandbox is not trusted: on a terminal, and in tables anywhere, control
characters are shown as \u001b, and names that could pass for more are quoted. Progress and
colours are for terminals (not where TERM is dumb); NO_COLOR takes the colours away.`

// exitStatuses are those of the README.
func exitStatuses() [][2]string {
	return [][2]string{
		{"0", "What was asked for was done: the run succeeded, the command ended with 0."},
		{"1", "It failed; standard error says how. Also: doctor found the isolation insufficient."},
		{"2", "The command line is wrong."},
		{"130, 143", "An interrupt (Ctrl-C), or SIGTERM, ended it."},
		{"another", "A script's (run, logs) or a command's (exec) own exit status. It may be any of the above as well; run --json tells them apart."},
	}
}

const manExamples = `carrel serve
carrel run --user ana 'id; pwd; ls -la /'
carrel run --url http://127.0.0.1:8642 --user ana --agent claude 'what is in my files?'
carrel exec --user ana -- python3 report.py
carrel files put --user ana plan.csv in/plan.csv
carrel ps --runs
carrel logs --follow run_01K…
carrel doctor`

// manPage writes the page of the command line, in man(7), from its model.
func manPage(app *kong.Application) string {
	var b strings.Builder
	b.WriteString(".\\\" made by carrel man: make man\n.TH CARREL 1 \"\" carrel \"User Commands\"\n" +
		".nh\n.ad l\n") // no hyphens in the names of keys
	section(&b, "NAME")
	fmt.Fprintf(&b, "carrel \\- %s\n", lowerFirst(roff(strings.TrimSuffix(app.Help, "."))))
	section(&b, "SYNOPSIS")
	b.WriteString(".B carrel\n[\\fIflags\\fR] \\fIcommand\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n")
	section(&b, "DESCRIPTION")
	paragraphs(&b, strings.Split(manAbout, "\n\n")...)
	section(&b, "OPTIONS")
	manFlags(&b, app.Flags)
	section(&b, "COMMANDS")
	for _, command := range app.Leaves(true) {
		manCommand(&b, command)
	}
	section(&b, "EXIT STATUS")
	for _, s := range exitStatuses() {
		tagged(&b, roff(s[0]), s[1])
	}
	section(&b, "ENVIRONMENT")
	paragraphs(&b, "The configuration is read from the environment, over a file (--config), under --set. "+
		"A key that carrel does not know is an error.")
	for _, k := range (carrel.Config{}).Table() {
		name := "\\fB" + roff(k.Key) + "\\fR"
		if k.Default != "" {
			name += " (" + roff(k.Default) + ")"
		}
		tagged(&b, name, k.Meaning)
	}
	section(&b, "EXAMPLES")
	fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(manExamples))
	return b.String()
}

func manCommand(b *strings.Builder, command *kong.Node) {
	fmt.Fprintf(b, ".SS carrel %s\n", roff(command.Summary()))
	texts := []string{command.Help}
	if command.Detail != "" && command.Name != "serve" { // whose detail is the configuration
		texts = append(texts, command.Detail)
	}
	paragraphs(b, texts...)
	for _, arg := range command.Positional {
		tagged(b, "\\fI"+roff(arg.Summary())+"\\fR", arg.Help)
	}
	manFlags(b, command.Flags)
}

func manFlags(b *strings.Builder, flags []*kong.Flag) {
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		help := f.Help
		if len(f.Envs) > 0 {
			help += " Or by $" + strings.Join(f.Envs, ", $") + "."
		}
		tagged(b, "\\fB"+roff(f.String())+"\\fR", help)
	}
}

func section(b *strings.Builder, name string) { fmt.Fprintf(b, ".SH %s\n", name) }

// tagged writes a paragraph with a tag, which is roff already.
func tagged(b *strings.Builder, tag, text string) {
	fmt.Fprintf(b, ".TP\n%s\n%s", tag, filled(text))
}

// paragraphs writes what stands under a heading.
func paragraphs(b *strings.Builder, texts ...string) {
	b.WriteString(filled(texts[0]))
	for _, text := range texts[1:] {
		fmt.Fprintf(b, ".PP\n%s", filled(text))
	}
}

// filled breaks text into lines that are well read where the page is changed.
func filled(text string) string {
	const width = 76
	var b strings.Builder
	line := ""
	for word := range strings.FieldsSeq(text) {
		if next := strings.TrimPrefix(line+" "+word, " "); line == "" || len(roff(next)) <= width {
			line = next
			continue
		}
		b.WriteString(roff(line) + "\n")
		line = word
	}
	return b.String() + roff(line) + "\n"
}

// roff writes text so that roff shows it as it is. Unescaped it would make a hyphen of
// "-" and typographic quotes of others, which a shell does not take back.
func roff(text string) string {
	var b strings.Builder
	atStart := true
	for _, r := range text {
		switch {
		case atStart && (r == '.' || r == '\''):
			b.WriteString(`\&`)
			fallthrough
		default:
			b.WriteString(roffRune(r))
		}
		atStart = r == '\n'
	}
	return b.String()
}

func roffRune(r rune) string {
	switch r {
	case '\\':
		return `\e`
	case '-':
		return `\-`
	case '\'':
		return `\(aq`
	case '`':
		return `\(ga`
	case '^':
		return `\(ha`
	case '~':
		return `\(ti`
	}
	if r > '~' {
		return fmt.Sprintf(`\[u%04X]`, r)
	}
	return string(r)
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }
