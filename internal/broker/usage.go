package broker

import (
	"bytes"
	"encoding/json"
)

const (
	// maxLineBytes bounds what is kept of a line of a stream. Those that carry
	// figures have some hundred bytes; a longer one is passed on and not read.
	maxLineBytes = 64 << 10
	// maxTokens is far above what one answer can have; a figure beyond is cut to
	// it, so that no sum overflows.
	maxTokens = 100_000_000
	// bytesPerToken estimates tokens of text where no figure came: Anthropic's
	// glossary has 3.5 English characters to a token. deltaBytes is what stands
	// around the text of one delta. An estimate holds only for a stream that was
	// cut, and is rather too high than too low.
	bytesPerToken = 3
	deltaBytes    = 80
)

// figures are what an answer has told of itself so far.
type figures struct {
	model    string
	tokens   tokens
	reported bool // tokens has been told at least once
	final    bool // nothing more is to come
	failed   bool // the answer told that it ends in an error
}

// reader finds figures in an answer as its bytes go by. It keeps a bounded part of
// them, and holds nothing up.
type reader interface {
	// read takes the next bytes and reports whether figures have changed.
	read(p []byte) bool
	figures() figures
}

// usage is the object of that name in the Messages API.
type usage struct {
	Input       *int64 `json:"input_tokens"`
	Output      *int64 `json:"output_tokens"`
	CacheRead   *int64 `json:"cache_read_input_tokens"`
	CacheCreate *int64 `json:"cache_creation_input_tokens"`
	// CacheCreation splits CacheCreate by how long the cache lives.
	CacheCreation *struct {
		For5m *int64 `json:"ephemeral_5m_input_tokens"`
		For1h *int64 `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
	// Iterations is there where an answer took several samplings (compaction);
	// the fields above are then the last one's alone.
	Iterations []usage `json:"iterations"`
}

// onto writes what u tells over t: figures are running totals, and what an event
// leaves out stays as it was.
func (u *usage) onto(t tokens) tokens {
	set := func(to, from *int64) {
		if from != nil {
			*to = min(max(*from, 0), maxTokens)
		}
	}
	set(&t.input, u.Input)
	set(&t.output, u.Output)
	set(&t.cacheRead, u.CacheRead)
	var all, for1h int64
	set(&all, u.CacheCreate)
	if u.CacheCreation != nil {
		var for5m int64
		set(&for5m, u.CacheCreation.For5m)
		set(&for1h, u.CacheCreation.For1h)
		all = max(all, for5m+for1h)
	}
	if u.CacheCreate != nil || u.CacheCreation != nil {
		t.cacheCreate5m, t.cacheCreate1h = all-for1h, for1h
	}
	if len(u.Iterations) == 0 {
		return t
	}
	var sum tokens
	for i := range u.Iterations {
		one := u.Iterations[i]
		one.Iterations = nil
		sum = sum.plus(one.onto(tokens{}))
	}
	return t.atLeast(sum)
}

func (t tokens) plus(o tokens) tokens {
	add := func(a, b int64) int64 { return min(a+b, maxTokens) }
	return tokens{
		input: add(t.input, o.input), output: add(t.output, o.output), cacheRead: add(t.cacheRead, o.cacheRead),
		cacheCreate5m: add(t.cacheCreate5m, o.cacheCreate5m), cacheCreate1h: add(t.cacheCreate1h, o.cacheCreate1h),
	}
}

func (t tokens) atLeast(o tokens) tokens {
	return tokens{
		input: max(t.input, o.input), output: max(t.output, o.output), cacheRead: max(t.cacheRead, o.cacheRead),
		cacheCreate5m: max(t.cacheCreate5m, o.cacheCreate5m), cacheCreate1h: max(t.cacheCreate1h, o.cacheCreate1h),
	}
}

// streamReader reads server-sent events:
//
//	event: message_start
//	data: {"type":"message_start","message":{"model":…,"usage":{…}}}
//	…
//	event: message_delta
//	data: {"type":"message_delta","delta":{…},"usage":{"output_tokens":…}}
type streamReader struct {
	line    []byte
	bytes   int64 // of the line, kept or not
	has     figures
	guessed int64 // output that the deltas so far may be
}

func (s *streamReader) figures() figures {
	f := s.has
	if !f.final {
		f.tokens.output = max(f.tokens.output, min(s.guessed, maxTokens))
	}
	return f
}

func (s *streamReader) read(p []byte) (changed bool) {
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		s.bytes += int64(len(part))
		if room := maxLineBytes - len(s.line); room > 0 {
			s.line = append(s.line, part[:min(room, len(part))]...)
		}
		p = rest
		if ended {
			changed = s.endLine() || changed
		}
	}
	return changed
}

func (s *streamReader) endLine() (changed bool) {
	line, whole := bytes.TrimSuffix(s.line, []byte("\r")), s.bytes == int64(len(s.line))
	size := s.bytes
	s.line, s.bytes = s.line[:0], 0
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	switch {
	case !ok:
		return false
	case bytes.Contains(data, []byte(`_delta"`)) && !bytes.Contains(data, []byte(`"usage"`)):
		// A piece of content. Within it a quote is escaped, so that no text can
		// pass itself off as figures.
		s.guessed += 1 + max(0, size-deltaBytes)/bytesPerToken
		return true
	case !whole || !bytes.Contains(data, []byte(`"message_`)) && !bytes.Contains(data, []byte(`"error"`)):
		return false
	}
	var event struct {
		Type    string `json:"type"`
		Message struct {
			Model string `json:"model"`
			Usage *usage `json:"usage"`
		} `json:"message"`
		Usage *usage `json:"usage"`
	}
	if json.Unmarshal(data, &event) != nil {
		return false
	}
	switch event.Type {
	case "message_start":
		s.has.model = event.Message.Model
		s.report(event.Message.Usage)
	case "message_delta":
		s.report(event.Usage)
		s.has.final = event.Usage != nil
	case "error":
		s.has.failed = true
	}
	return true
}

func (s *streamReader) report(u *usage) {
	if u != nil {
		s.has.tokens, s.has.reported = u.onto(s.has.tokens), true
	}
}

// objectReader picks "model" and "usage" out of the top level of one JSON object,
// without keeping the rest.
type objectReader struct {
	depth             int
	inString, escaped bool
	inValue           bool   // behind the colon of a member of the top level
	key, value        []byte // of that member
	keep              bool   // value is wanted
	has               figures
}

func (o *objectReader) figures() figures { return o.has }

func (o *objectReader) read(p []byte) (changed bool) {
	for _, c := range p {
		changed = o.next(c) || changed
	}
	return changed
}

func (o *objectReader) next(c byte) (changed bool) {
	if o.inString {
		o.take(c)
		switch {
		case o.escaped:
			o.escaped = false
		case c == '\\':
			o.escaped = true
		case c == '"':
			o.inString = false
		}
		return false
	}
	switch c {
	case '"':
		o.inString = true
		if o.depth == 1 && !o.inValue {
			o.key = o.key[:0]
		}
	case ':':
		if o.depth == 1 && !o.inValue {
			o.inValue, o.value = true, o.value[:0]
			o.keep = string(o.key) == `"model"` || string(o.key) == `"usage"`
			return false
		}
	case '{', '[':
		o.depth++
	case '}', ']':
		o.depth--
		if o.depth == 0 {
			changed = o.endMember()
			o.has.final = true
		}
	case ',':
		if o.depth == 1 {
			return o.endMember()
		}
	}
	o.take(c)
	return changed
}

// take keeps c where it belongs to a key or to a value that is wanted.
func (o *objectReader) take(c byte) {
	switch {
	case o.inValue && o.keep && len(o.value) < maxLineBytes:
		o.value = append(o.value, c)
	case !o.inValue && o.depth == 1 && o.inString && len(o.key) < len(`"model"`)+1:
		o.key = append(o.key, c)
	}
}

func (o *objectReader) endMember() (changed bool) {
	kept := o.inValue && o.keep
	o.inValue, o.keep = false, false
	if !kept {
		return false
	}
	if string(o.key) == `"model"` {
		return json.Unmarshal(o.value, &o.has.model) == nil
	}
	var u usage
	if json.Unmarshal(o.value, &u) != nil {
		return false
	}
	o.has.tokens, o.has.reported = u.onto(tokens{}), true
	return true
}

// noReader is for answers without figures: errors.
type noReader struct{}

func (noReader) read([]byte) bool { return false }
func (noReader) figures() figures { return figures{final: true} }
