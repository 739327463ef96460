package hook

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

const (
	// maxScriptBytes bounds what is parsed: the parser recurses into what is nested.
	maxScriptBytes = 32 << 10
	// maxNested is how often a script may stand in a script (sh -c, eval).
	maxNested = 5
	// maxReadingBytes bounds what rules are held against: "env" may have as many
	// words behind it as there is room for, and each may be a program.
	maxReadingBytes = 64 << 10
)

// script is a command of bash, taken apart.
type script struct {
	// commands are its simple commands as they are written, quotes taken away,
	// with unknown for what is known only when they run.
	commands []string
	// readings are what else a rule may know them by: without the directory of
	// the program, without env or timeout in front, and what stands in sh -c.
	readings []string
	// more says what is in it besides simple commands, such as a redirection: no
	// pattern that allows a command means that as well.
	more string
	// opaque says why there may be commands in it that were not found.
	opaque string

	nested int
	bytes  int // of readings
}

// joinedComment is one of two places where the parser (mvdan.cc/sh v3.14.1) and bash
// disagree, found by TestNothingElseRunsInARealShell: a backslash at the end of a
// comment joins the next line to it for the parser, not for bash. The other is the
// carriage return: a blank for the parser, a letter for bash. A zero byte the parser
// skips, and no command can have one.
var joinedComment = regexp.MustCompile(`#[^\n]*\\\n`)

// parseScript takes a command apart. It never fails: what it cannot read is opaque.
func parseScript(text string) *script {
	s := &script{}
	s.parse(text)
	return s
}

func (s *script) parse(text string) {
	if len(text) > maxScriptBytes {
		s.hide("it is too long to be judged")
		return
	}
	if strings.ContainsAny(text, "\r\x00") || joinedComment.MatchString(text) {
		s.hide("a shell might read it in another way")
		return
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		s.hide("it cannot be parsed")
		return
	}
	syntax.Walk(file, s.visit)
}

func (s *script) hide(why string) {
	if s.opaque == "" {
		s.opaque = why
	}
}

func (s *script) add(what string) {
	if s.more == "" {
		s.more = what
	}
}

// visit names what is harmless; every other node, one that a later parser brings
// among them, is not.
func (s *script) visit(node syntax.Node) bool {
	switch n := node.(type) {
	case nil, *syntax.File, *syntax.Comment, *syntax.BinaryCmd, *syntax.Block, *syntax.Subshell, *syntax.IfClause,
		*syntax.WhileClause, *syntax.ForClause, *syntax.WordIter, *syntax.CaseClause, *syntax.CaseItem, *syntax.TimeClause,
		*syntax.Word, *syntax.Lit, *syntax.SglQuoted, *syntax.DblQuoted:
	case *syntax.Stmt:
		if n.Coprocess || n.Disown {
			s.hide("it has a coprocess")
		}
	case *syntax.Redirect:
		s.redirect(n)
	case *syntax.CallExpr:
		s.call(n)
	case *syntax.Assign:
		s.add("it sets a variable")
		if n.Index != nil || n.Array != nil {
			s.hide("it sets an array") // an index is arithmetic
		}
	case *syntax.CmdSubst, *syntax.ProcSubst:
		s.add("it has a substitution") // the commands in it are visited
	case *syntax.ParamExp:
		if n.Excl || n.Index != nil || n.Slice != nil || n.Repl != nil || n.Names != 0 || n.Exp != nil || n.Flags != nil || n.NestedParam != nil {
			s.hide("it has an expansion that may run commands") // such as ${x@P}
		}
	case *syntax.DeclClause:
		s.add("it sets a variable")
		if v := n.Variant.Value; v != "export" && v != "readonly" && v != "local" || hasOption(n) {
			s.hide("it declares a variable of a kind that may run commands") // -i, -n: by its value
		}
	case *syntax.FuncDecl:
		s.add("it defines a function")
		s.hide("it defines a function") // which may have any command's name
	default:
		s.hide("it has more in it than commands")
	}
	return true
}

// redirect lets pass what writes no file: reading, joining outputs, /dev/null.
func (s *script) redirect(r *syntax.Redirect) {
	target := textOf(r.Word)
	switch r.Op {
	case syntax.RdrIn, syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc:
		return
	case syntax.DplOut, syntax.DplIn:
		if target != "" && strings.Trim(target, "0123456789-") == "" {
			return
		}
	default: // all others write, or open to write
	}
	if target != "/dev/null" {
		s.add("it writes into a file")
	}
}

// call takes in a simple command.
func (s *script) call(n *syntax.CallExpr) {
	if len(n.Args) == 0 {
		return // variables alone
	}
	words := make([]string, 0, len(n.Args))
	for _, w := range n.Args {
		text := textOf(w)
		if strings.Contains(text, "[") && strings.ContainsAny(text, "$`") {
			s.hide("it has an index that may run commands") // unset 'a[$(date)]' does
		}
		words = append(words, text)
	}
	s.commands = append(s.commands, strings.Join(words, " "))
	s.read(words)
}

// read adds what rules may know a command by: behind a runner each word may be the
// program that is run.
func (s *script) read(words []string) {
	runs := s.program(words)
	for i := 1; runs && i < len(words); i++ {
		s.program(words[i:])
	}
}

// program adds a program with its arguments, and looks into those that are known
// to take a script. It reports whether it runs what stands behind it.
func (s *script) program(words []string) (runs bool) {
	name := path.Base(words[0])
	for _, first := range slices.Compact([]string{words[0], name}) {
		text := strings.Join(append([]string{first}, words[1:]...), " ")
		if s.bytes += len(text); s.bytes > maxReadingBytes {
			s.hide("it has too much in it to be judged")
			return false
		}
		s.readings = append(s.readings, text)
	}
	switch {
	case strings.ContainsRune(words[0], unknown):
		// Whatever it is: it may also be one of those below.
		s.hide("the name of a program is known only when it runs")
	case slices.Contains(runners, name):
		return true
	case slices.Contains(shells, name):
		s.shell(words[1:])
	case name == "eval":
		s.inner(strings.Join(words[1:], " "))
	case name == "trap" && len(words) > 1:
		s.inner(words[1])
	case slices.Contains(deceivers, name):
		s.hide("it may change what other commands mean")
	}
	return false
}

// runners are programs and builtins that run what stands behind them.
var runners = []string{
	"env", "command", "builtin", "exec", "nohup", "nice", "ionice", "timeout", "time", "setsid", "stdbuf", "xargs", "sudo",
	"doas", "su", "busybox", "toybox", "chroot", "unshare", "nsenter", "setpriv", "flock", "watch", "find", "fd", "parallel",
	"strace", "ltrace", "script", "taskset", "chrt", "prlimit", "unbuffer",
}

var shells = []string{"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "rbash"}

// deceivers change the meaning of commands that come after them, now or in a later
// call: the shell stays.
var deceivers = []string{"source", ".", "alias", "unalias", "enable", "hash", "bind", "complete", "mapfile", "readarray", "shopt"}

// shell looks into sh -c; a shell that reads elsewhere cannot be looked into.
func (s *script) shell(args []string) {
	for i := 0; i+1 < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" || a == "-O":
			i++
		case !strings.HasPrefix(a, "-") || strings.HasPrefix(a, "--"):
			i = len(args)
		case strings.Contains(a, "c"):
			s.inner(args[i+1])
			return
		}
	}
	s.hide("it runs a script")
}

// inner takes apart a script in the script.
func (s *script) inner(text string) {
	switch {
	case strings.ContainsRune(text, unknown):
		s.hide("it runs a text that is known only when it runs")
	case s.nested >= maxNested:
		s.hide("it is nested too deep to be judged")
	default:
		s.nested++
		s.parse(text)
		s.nested--
	}
}

// hasOption reports whether a declaration has an option, or what may be one.
func hasOption(n *syntax.DeclClause) bool {
	return slices.ContainsFunc(n.Args, func(a *syntax.Assign) bool {
		text := textOf(a.Value)
		return a.Naked && (strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") || strings.ContainsRune(text, unknown))
	})
}
