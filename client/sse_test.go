package client

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// shown is a frame as text can show it.
type shown struct{ ID, Event, Data string }

func decodeAll(r io.Reader) (got []shown, comment string, err error) {
	d := newDecoder(r, func() {})
	for {
		f, err := d.next()
		if err != nil {
			return got, d.comment, err
		}
		got = append(got, shown{f.id, f.event, string(f.data)})
	}
}

func TestDecoderReadsTheStandardsStreams(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []shown
		comment  string
	}{
		{"usual", "id: 1\nevent: A\ndata: {}\n\nid: 2\nevent: B\ndata: x\n\n", []shown{{"1", "A", "{}"}, {"2", "B", "x"}}, ""},
		{"data of several lines", "data: YHOO\ndata: +2\ndata: 10\n\n", []shown{{"", "", "YHOO\n+2\n10"}}, ""},
		{"comments", ": one\n\n:two\ndata: x\n: three\n\n", []shown{{"", "", "x"}}, "three"},
		{"without a space", "data:x\nid:1\n\n", []shown{{"1", "", "x"}}, ""},
		{"one space is taken off", "data:  x\n\n", []shown{{"", "", " x"}}, ""},
		{"without a value", "data\n\ndata\ndata\n\ndata:", []shown{{"", "", ""}, {"", "", "\n"}}, ""},
		{"without data", "id: 1\nevent: A\n\ndata: x\n\n", []shown{{"", "", "x"}}, ""},
		{"unknown fields", "retry: 5\nfoo: bar\ndata: x\nretry\n\n", []shown{{"", "", "x"}}, ""},
		{"CRLF", "data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", []shown{{"", "", "a\nb"}, {"", "", "c"}}, ""},
		{"CR", "data: a\rdata: b\r\rdata: c\r\r", []shown{{"", "", "a\nb"}, {"", "", "c"}}, ""},
		{"byte order mark", "\uFEFFdata: a\n\n\uFEFFdata: b\n\n", []shown{{"", "", "a"}}, ""},
		{"cut off", "data: a\n\ndata: b\n", []shown{{"", "", "a"}}, ""},
		{"empty", "", nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"at once": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)), "with the end": iotest.DataErrReader(strings.NewReader(tt.in)),
			} {
				got, comment, err := decodeAll(r)
				if diff := cmp.Diff(tt.want, got); diff != "" || !errors.Is(err, io.EOF) || comment != tt.comment {
					t.Errorf("%s: comment %q, %v %s", name, comment, err, diff)
				}
			}
		})
	}
}

func TestFrameIsBoundedHoweverItIsMade(t *testing.T) {
	for name, line := range map[string]string{
		"one line":   strings.Repeat("x", maxFrameBytes+1),
		"many lines": strings.Repeat("data: x\n", maxFrameBytes/7+1),
		"comments":   strings.Repeat(":"+strings.Repeat("c", 1000)+"\n", maxFrameBytes/1001+1),
	} {
		if _, _, err := decodeAll(strings.NewReader(line)); !errors.Is(err, errFrameTooLong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	largest := "data: " + strings.Repeat("x", maxFrameBytes-len("data: ")) + "\n\n"
	got, _, err := decodeAll(strings.NewReader(largest + largest))
	if len(got) != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("the largest frames: %d, %v", len(got), err)
	}
}

func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{
		"id: 1\nevent: A\ndata: {}\n\n", "data: a\r\rdata:b\r\n\r\n", ": c\n\n", "\uFEFFdata\n\n", "data", "\r\n\r\n", "id: \x00\ndata: \xff\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, comment, err := decodeAll(bytes.NewReader(in))
		if !errors.Is(err, io.EOF) && !errors.Is(err, errFrameTooLong) {
			t.Fatal(err)
		}
		slow, slowComment, slowErr := decodeAll(iotest.OneByteReader(bytes.NewReader(in)))
		if diff := cmp.Diff(got, slow); diff != "" || comment != slowComment || !errors.Is(slowErr, err) {
			t.Fatalf("depends on how the bytes arrive: %v %v %s", err, slowErr, diff)
		}
		// What was read, written again, reads the same.
		var out strings.Builder
		for _, s := range got {
			out.WriteString("id: " + s.ID + "\nevent: " + s.Event + "\ndata: " + strings.ReplaceAll(s.Data, "\n", "\ndata: ") + "\n\n")
		}
		if again, _, _ := decodeAll(strings.NewReader(out.String())); !cmp.Equal(got, again) {
			t.Fatal(cmp.Diff(got, again))
		}
	})
}
