package openapitest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// frame is one of a stream of server-sent events.
type frame struct {
	event string
	data  []byte
}

// readFrames reads a stream by the rules of the HTML standard, section 9.2.6. What a
// cut stream has begun and not ended is left out.
func readFrames(b []byte, cut bool) ([]frame, error) {
	var frames []frame
	var f frame
	var data []string
	lines := strings.Split(string(b), "\n")
	if last := lines[len(lines)-1]; last != "" && !cut {
		return nil, fmt.Errorf("the stream ends within the line %.80q", last)
	}
	for _, line := range lines[:len(lines)-1] {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != nil {
				f.data = []byte(strings.Join(data, "\n"))
				frames = append(frames, f)
			}
			f, data = frame{}, nil
		case field == "": // a comment
		case field == "event":
			f.event = value
		case field == "data":
			data = append(data, value)
		case field != "id":
			return nil, fmt.Errorf("the stream has the line %.80q", line)
		}
	}
	if data != nil && !cut {
		return nil, fmt.Errorf("the stream ends within a frame of %s", f.event)
	}
	return frames, nil
}

func unmarshal(b []byte) (node, error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	object, ok := value.(node)
	if !ok {
		return nil, fmt.Errorf("%.80s is no object", b)
	}
	return object, nil
}
