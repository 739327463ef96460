package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"carrel/internal/jail/attack"
)

// rowTime is what one row may take, on a machine that has much else to do.
const rowTime = 30 * time.Second

// attackTools runs each row of the tool tier as a command of its own. A row that
// ends its whole sandbox has left no result, and the next gets a new sandbox.
func (s *session) attackTools(ctx context.Context, way Way) (err error) {
	target := attack.InSandbox()
	host, err := s.listen(ctx, &target)
	if err != nil {
		return err
	}
	defer host.close()
	var c *conversation
	defer func() {
		if c != nil {
			err = errors.Join(err, c.end())
		}
	}()
	rows := s.of(attack.Tool)
	for len(rows) > 0 {
		fresh := c == nil
		if fresh {
			if c, err = s.converse(ctx, way, target); err != nil {
				return err
			}
		}
		if err := c.keepSibling(ctx, s.secret, &target); err != nil {
			return err
		}
		got, err := c.try(ctx, rows[0], target)
		// One without a result is tried once more, in a sandbox that has seen no other:
		// what earlier ones left behind may have ended it.
		if got != nil || fresh {
			s.keep(rows[0].ID, got)
			rows = rows[1:]
		}
		// What a row that succeeded did to its sandbox, it did to the next row's.
		if err != nil || got == nil || got.Succeeded {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			ending := c.end()
			if c = nil; ending != nil {
				return ending
			}
		}
	}
	return nil
}

// try runs one row. An error says that the sandbox is not fit for another.
func (c *conversation) try(ctx context.Context, r attack.Row, target attack.Target) (*attack.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, rowTime)
	defer cancel()
	out, err := c.exec(ctx, target, "/workspace/attacker", attack.ModeRow, r.ID)
	if err != nil {
		return nil, err
	}
	results, err := decodeAll(strings.NewReader(out.Stdout))
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // what a row left behind is no result
	}
	return results[r.ID], nil
}

// attackWorker runs all rows of the worker tier in one process, which stands in the
// worker's place. One that ended early is followed by another for the rest, from the
// row without a result on: only the first row of a process is known to have ended it.
func (s *session) attackWorker(ctx context.Context, way Way) error {
	rows := s.of(attack.Worker)
	for len(rows) > 0 {
		got, err := s.attackFromWorker(ctx, way, rows)
		if err != nil {
			return err
		}
		if got[rows[0].ID] == nil {
			s.keep(rows[0].ID, nil)
			rows = rows[1:]
		}
		for len(rows) > 0 && got[rows[0].ID] != nil {
			s.keep(rows[0].ID, got[rows[0].ID])
			rows = rows[1:]
		}
	}
	return nil
}

func (s *session) attackFromWorker(ctx context.Context, way Way, rows []attack.Row) (_ map[string]*attack.Result, err error) {
	target := attack.InSandbox()
	host, err := s.listen(ctx, &target)
	if err != nil {
		return nil, err
	}
	defer host.close()
	encoded, err := json.Marshal(target)
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(rows))
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	b, err := s.newSandbox(ctx, s.Attacker, way, target.Neighbour, []string{attack.TargetEnv + "=" + string(encoded), attack.RowsEnv + "=" + strings.Join(ids, " ")})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = b.out.Close() })
	defer func() {
		stop()
		err = errors.Join(err, b.close())
	}()
	if _, err := b.in.WriteString("\n"); err != nil {
		return nil, err
	}
	// A process that ends in the middle of a result has left none.
	results, _ := decodeAll(b.out)
	return results, ctx.Err()
}
