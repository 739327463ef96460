// Package exact reads the JSON files that an operator writes by hand, where what is
// passed over in silence would be in force in the operator's mind alone.
package exact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Decode reads text into v. It refuses what encoding/json lets pass: members that v
// does not have, members that are there twice, be it in another case (the last one
// would win), and anything behind the value.
func Decode(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands behind the JSON value")
	}
	return repeated(json.NewDecoder(bytes.NewReader(text)))
}

// object is one that the walk is in, or an array, which has no names.
type object struct {
	names   map[string]bool // folded; nil in an array
	isValue bool            // the next token is a value, not a name
}

// repeated finds a name that an object has twice. It is a loop, so that nesting costs
// no stack.
func repeated(d *json.Decoder) error {
	open := []object{{isValue: true}}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		in := &open[len(open)-1]
		name, isText := token.(string)
		switch {
		case token == json.Delim('}') || token == json.Delim(']'):
			open = open[:len(open)-1]
			continue
		case in.names != nil && !in.isValue && isText:
			folded := strings.ToLower(name)
			if in.names[folded] {
				return fmt.Errorf("%q is there twice", name)
			}
			in.names[folded], in.isValue = true, true
			continue
		}
		in.isValue = false
		switch token {
		case json.Delim('{'):
			open = append(open, object{names: make(map[string]bool)})
		case json.Delim('['):
			open = append(open, object{})
		}
	}
}
