package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"carrel"
)

func TestManPageNamesEveryCommandFlagAndKey(t *testing.T) {
	page, stderr, status := command(t, environment(t.TempDir(), "USER=somebody", "CARREL_URL=http://nowhere"), "man")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	parser, err := newParser(&cli{}, &output{}, "ana", func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".SH EXIT STATUS", ".SH ENVIRONMENT"}
	for _, c := range parser.Model.Leaves(true) {
		want = append(want, "\n.SS carrel "+roff(c.Path()))
		for _, f := range c.Flags {
			want = append(want, `\fB`+roff(f.String())+`\fR`)
		}
	}
	for _, k := range (carrel.Config{}).Table() {
		want = append(want, `\fB`+k.Key+`\fR`)
	}
	for _, text := range want {
		if !strings.Contains(page, text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if strings.Contains(page, "complete \\-\\-") || strings.Contains(page, "somebody") || strings.Contains(page, "nowhere") {
		t.Error("the page has what is hidden, or what is this machine's own")
	}
}

// missingDate is what mandoc says of every page that is made with a program, and not on
// a day.
var missingDate = regexp.MustCompile(`(?m)^.*WARNING: missing date.*\n`)

func TestManPageIsWithoutFault(t *testing.T) {
	page, _, _ := command(t, environment(t.TempDir()), "man")
	for _, checker := range [][]string{
		{"groff", "-man", "-Tutf8", "-ww", "-z"},
		{"mandoc", "-Tlint"},
	} {
		t.Run(checker[0], func(t *testing.T) {
			path, err := exec.LookPath(checker[0])
			if err != nil {
				t.Skipf("there is no %s here", checker[0])
			}
			check := func(page string) string {
				cmd := exec.CommandContext(t.Context(), path, checker[1:]...)
				cmd.Env, cmd.Stdin = os.Environ(), strings.NewReader(page)
				told, _ := cmd.CombinedOutput()
				return missingDate.ReplaceAllString(string(told), "")
			}
			if told := check(page); told != "" {
				t.Error(told)
			}
			if check(page+".nosuchmacro\n\\fQ\n") == "" {
				t.Error("a broken page is found to be without fault")
			}
		})
	}
}

func TestRoffShowsTextAsItIs(t *testing.T) {
	path, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("there is no groff here")
	}
	const text = `.TH 'a' \fB \u001b --flag ^ ~ "x" ` + "`y` …é\n'quoted' line\n.dotted line"
	cmd := exec.CommandContext(t.Context(), path, "-man", "-Tutf8", "-P-c", "-rLL=200n")
	cmd.Stdin = strings.NewReader(".TH X 1\n.SH Y\n.nf\n" + roff(text) + "\n")
	shown, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if !strings.Contains(string(shown), strings.TrimSpace(line)) {
			t.Errorf("%q is shown as %s", line, shown)
		}
	}
}

func TestHelpIsThatOfTheCommand(t *testing.T) {
	env := environment(t.TempDir())
	for _, name := range []string{"", "run", "files get", "key add"} {
		args := strings.Fields(name)
		want, _, _ := command(t, env, append(args, "--help")...)
		got, stderr, status := command(t, env, append([]string{"help"}, args...)...)
		if got != want || !strings.HasPrefix(want, "Usage: carrel "+name) || stderr != "" || status != 0 {
			t.Errorf("help %s: status %d, %q; --help gives %q", name, status, got+stderr, want)
		}
	}
	if _, stderr, status := command(t, env, "help", "nope"); status != 2 || !strings.Contains(stderr, "nope") {
		t.Errorf("help nope: status %d, %q", status, stderr)
	}
}
