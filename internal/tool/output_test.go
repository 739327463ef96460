package tool

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestOutputKeepsHeadAndTailAndTellsItsTrueSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 40).Draw(t, "limit")
		pieces := rapid.SliceOf(rapid.StringMatching(`[a-z]{0,30}`)).Draw(t, "pieces")
		o := NewOutput(limit)
		for _, p := range pieces {
			o.WriteString(p)
		}
		whole, half := strings.Join(pieces, ""), limit/2
		if o.Size() != int64(len(whole)) {
			t.Fatalf("Size() = %d, want %d", o.Size(), len(whole))
		}
		want := whole
		if cut := len(whole) - 2*half; cut > 0 {
			want = fmt.Sprintf("%s\n[… %d bytes left out …]\n%s", whole[:half], cut, whole[len(whole)-half:])
		}
		if o.Truncated() != (len(whole) > 2*half) || o.String() != want {
			t.Fatalf("limit %d: truncated %v\n%q\nwant\n%q", limit, o.Truncated(), o.String(), want)
		}
		if kept := len(o.head) + len(o.tail); kept > limit {
			t.Fatalf("%d bytes are kept, at most %d may be", kept, limit)
		}
	})
}

func TestOutputIsUTF8EvenWhereACharacterIsCut(t *testing.T) {
	for limit := range 20 {
		o := NewOutput(limit)
		o.WriteString(strings.Repeat("日本語", 10))
		if s := o.String(); !utf8.ValidString(s) {
			t.Errorf("limit %d: %q", limit, s)
		}
	}
}

// decodeCut decodes b in pieces that end at cuts.
func decodeCut(b []byte, cuts ...int) string {
	var d textDecoder
	var text strings.Builder
	from := 0
	for _, to := range append(cuts, len(b)) {
		if to < from || to > len(b) {
			continue
		}
		text.WriteString(d.decode(b[from:to]))
		from = to
	}
	text.WriteString(d.flush())
	return text.String()
}

func TestDecodedPiecesMakeTheDecodedWhole(t *testing.T) {
	alphabet := rapid.SampledFrom([]string{"a", "é", "語", "😀", "\xff", "\x80", "\xe8", "\xe8\xaa", "\xf0\x9f\x98", "\xc0", "\xed\xa0\x80", "\uFFFD"})
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(strings.Join(rapid.SliceOfN(alphabet, 0, 20).Draw(t, "text"), ""))
		cuts := rapid.SliceOfN(rapid.IntRange(0, len(b)), 0, 8).Draw(t, "cuts")
		want := strings.ToValidUTF8(string(b), string(utf8.RuneError))
		if got := decodeCut(b, cuts...); got != want {
			t.Fatalf("%q cut at %v: %q, want %q", b, cuts, got, want)
		}
	})
}

func FuzzTextDecoder(f *testing.F) {
	f.Add([]byte("plain"), 2, 3)
	f.Add([]byte("\xe8\xaa\x9e"), 1, 2)
	f.Add([]byte("\xff\xff\xff"), 1, 2)
	f.Add([]byte("\xf0\x9f\x98"), 0, 3)
	f.Fuzz(func(t *testing.T, b []byte, first, second int) {
		want := strings.ToValidUTF8(string(b), string(utf8.RuneError))
		if got := decodeCut(b, first, second); got != want {
			t.Errorf("%q cut at %d, %d: %q, want %q", b, first, second, got, want)
		}
	})
}
