package carrel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"carrel/internal/broker"
	"carrel/internal/pool"
	"carrel/protocol"
)

// openBroker makes the one door out of the sandboxes, where there is a key for it.
func (o *Orchestrator) openBroker(ctx context.Context) error {
	if !o.cfg.AnthropicAPIKey.IsSet() {
		return nil
	}
	prices, err := o.cfg.prices()
	if err != nil {
		return err
	}
	key := broker.FixedKey(o.cfg.AnthropicAPIKey)
	if path := o.cfg.AnthropicAPIKeyFile; path != "" {
		key = broker.FileKey(path, o.cfg.AnthropicAPIKey)
	}
	o.broker, err = broker.New(ctx, broker.Options{
		Upstreams: []broker.Upstream{{BaseURL: o.cfg.AnthropicBaseURL, Allow: broker.MessagesAPI()}},
		Key:       key,
		Prices:    prices,
		UserDay:   broker.Budget{USD: o.cfg.BudgetUserDayUSD, Tokens: int64(o.cfg.BudgetUserDayTokens)},
		Ledger:    o.store,
		Began:     o.traceModel,
		Answered:  o.modelAnswered,
		Refused:   func(r broker.Refusal) { o.metrics.ModelRefused(string(r)) },
		Logger:    o.log,
	})
	return err
}

// prices are those of the configuration.
func (c Config) prices() (*broker.Prices, error) {
	if c.PricesFile == "" {
		return broker.DefaultPrices(), nil
	}
	return broker.ReadPricesFile(c.PricesFile)
}

// connect is how the pool connects a worker with the broker; nil if there is none.
func (o *Orchestrator) connect() func(string) (pool.Link, *os.File, error) {
	if o.broker == nil {
		return nil
	}
	return func(userID string) (pool.Link, *os.File, error) {
		link, file, err := o.broker.Connect(userID)
		if err != nil {
			return nil, nil, err // no *broker.Link in an interface: that would not be nil
		}
		return link, file, nil
	}
}

// meter lets the run's requests pass and counts them; nil without a broker.
func (o *Orchestrator) meter(ctx context.Context, lease *pool.Lease, runID string) *broker.Meter {
	link, ok := lease.Link().(*broker.Link)
	if !ok {
		return nil
	}
	return link.Begin(ctx, runID, broker.Budget{USD: o.cfg.BudgetRunUSD, Tokens: int64(o.cfg.BudgetRunTokens)})
}

func (o *Orchestrator) totals() protocol.Totals {
	if o.broker == nil {
		return protocol.Totals{}
	}
	total := o.broker.Total()
	return protocol.Totals{Usage: total.Usage(), Requests: total.Requests}
}

// billed is a run's ending with what the run has used: the broker's figures,
// whatever the worker says. A run that was refused a request for its budget ends
// with that, however its agent took it.
func billed(ctx context.Context, ev protocol.EventParams, meter *broker.Meter) (protocol.EventParams, error) {
	usage := meter.Usage()
	var err error
	if over := meter.Exceeded(); over != nil && ctx.Err() == nil {
		ev.Type = protocol.EventRunError
		ev.Data, err = json.Marshal(protocol.RunError{Code: over.Code, Message: over.Message, Usage: &usage})
	} else if ev.Type == protocol.EventRunFinished {
		ev.Data, err = with(ev.Data, map[string]any{"tokens_used": usage.Tokens(), "usage": usage})
	} else if usage != (protocol.Usage{}) {
		ev.Data, err = with(ev.Data, map[string]any{"usage": usage})
	}
	if err != nil {
		return ev, fmt.Errorf("bill run: %w", err)
	}
	return ev, nil
}

// with sets members of a JSON object and leaves the others as they are.
func with(object json.RawMessage, members map[string]any) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, protocol.Errorf(protocol.CodeWorkerProtocolError, "the worker's ending is no object: %w", err)
	}
	for name, v := range members {
		value, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		all[name] = value
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // escaping would make a long content several times longer
	if err := encoder.Encode(all); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
