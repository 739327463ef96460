package pool

import (
	"encoding/json"
	"strconv"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// eventOf decodes an event's params, which it keeps. Unlike encoding/json it takes
// members by their exact names only.
func eventOf(params json.RawMessage) (ev protocol.EventParams, err error) {
	err = jsonrpc.Members(params, func(name, value []byte) (err error) {
		isNull := string(value) == "null"
		switch string(name) {
		case "run_id":
			if !isNull {
				ev.RunID, err = jsonrpc.Text(value)
			}
		case "seq":
			if !isNull {
				ev.Seq, err = strconv.ParseInt(string(value), 10, 64)
			}
		case "type":
			if !isNull {
				var is string
				is, err = jsonrpc.Text(value)
				ev.Type = protocol.EventType(is)
			}
		case "data":
			ev.Data = value
		}
		return err
	})
	return ev, err
}
