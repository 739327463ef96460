package broker

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"carrel/internal/logline"
	"carrel/internal/store"
	"carrel/protocol"
)

// Budget is what may be spent. A zero field bounds nothing.
type Budget struct {
	USD    float64
	Tokens int64 // of all kinds together
}

// usedUp says in words that s has used the budget up; "" while it has not.
func (b Budget) usedUp(s store.Spending, whose string) string {
	usd, tokens := float64(s.CostNanoUSD)/1e9, s.Usage().Tokens()
	switch {
	case b.USD > 0 && usd >= b.USD:
		// Rounded down to what is shown, so that it never says less was used.
		return fmt.Sprintf("%s has used $%.4f of $%g", whose, math.Floor(usd*1e4)/1e4, b.USD)
	case b.Tokens > 0 && tokens >= b.Tokens:
		return fmt.Sprintf("%s has used %d of %d tokens", whose, tokens, b.Tokens)
	}
	return ""
}

// account is one user's.
type account struct {
	userID string
	slots  chan struct{} // one for each request under way

	mu     sync.Mutex
	loaded bool // today holds what the ledger has
	day    time.Time
	today  store.Spending // with answers under way
}

func newAccount(userID string) *account {
	return &account{userID: userID, slots: make(chan struct{}, maxRequests)}
}

// Meter counts what one run spends. A nil one is that of a run that can spend nothing.
type Meter struct {
	ctx    context.Context //nolint:containedctx // whom lines of the log are about, and no more
	link   *Link
	runID  string
	budget Budget

	// Guarded by the account's mutex.
	spent    store.Spending
	exceeded *protocol.Error
	going    map[*exchange]struct{}
	ended    bool
}

// Begin lets requests of the run pass, paid from its budget; End it.
// ctx is whom lines of the log are about.
func (l *Link) Begin(ctx context.Context, runID string, budget Budget) *Meter {
	m := &Meter{ctx: ctx, link: l, runID: runID, budget: budget, going: make(map[*exchange]struct{})}
	l.account.mu.Lock()
	defer l.account.mu.Unlock()
	l.runs[runID] = m
	return m
}

// End lets no further request of the run pass. Those under way are given up.
func (m *Meter) End() {
	if m == nil {
		return
	}
	a := m.link.account
	a.mu.Lock()
	m.ended = true
	if m.link.runs[m.runID] == m {
		delete(m.link.runs, m.runID)
	}
	left := make([]*exchange, 0, len(m.going))
	for x := range m.going {
		left = append(left, x)
	}
	a.mu.Unlock()
	for _, x := range left {
		x.giveUp()
	}
}

// Usage is what the run has spent so far, answers under way included.
func (m *Meter) Usage() protocol.Usage {
	if m == nil {
		return protocol.Usage{}
	}
	m.link.account.mu.Lock()
	defer m.link.account.mu.Unlock()
	return m.spent.Usage()
}

// Exceeded returns CodeBudgetExceeded once a request of the run was refused for
// its budget or its user's; else nil.
func (m *Meter) Exceeded() *protocol.Error {
	if m == nil {
		return nil
	}
	m.link.account.mu.Lock()
	defer m.link.account.mu.Unlock()
	return m.exceeded
}

// admit finds the run that a request is of, and lets it pass if there is something
// left to pay it from.
func (l *Link) admit(ctx context.Context, runID string, x *exchange) *refusal {
	a, b := l.account, l.broker
	a.mu.Lock()
	defer a.mu.Unlock()
	m := l.runs[runID]
	if m == nil {
		return forbid(NoRun, "no run of that name is going in this sandbox")
	}
	if err := a.openDay(ctx, b.o); err != nil {
		b.log.ErrorContext(ctx, "what a user has spent is not known", logline.KeyRun, runID, logline.KeyUser, logline.User(a.userID), "error", err)
		return unavailable("what was spent so far is not known: try again later")
	}
	why := m.budget.usedUp(m.spent, "the run")
	if why == "" {
		why = b.o.UserDay.usedUp(a.today, "today (UTC) the user")
	}
	if why != "" {
		if m.exceeded == nil {
			m.exceeded = protocol.Errorf(protocol.CodeBudgetExceeded, "%s", why)
		}
		return overBudget(why)
	}
	m.going[x] = struct{}{}
	x.meter = m
	return nil
}

// openDay makes today's figures those of the present day. Without a budget of the
// day nobody looks at them, and a ledger that cannot be read stops nobody.
func (a *account) openDay(ctx context.Context, o Options) error {
	day := time.Now().UTC().Truncate(24 * time.Hour)
	if o.UserDay == (Budget{}) || (a.loaded && a.day.Equal(day)) {
		return nil
	}
	// Asked of the ledger at each change of day, not set to nothing: a clock that jumps
	// to another day and back must not give the day's budget a second time.
	spent, err := o.Ledger.SpentToday(ctx, a.userID)
	if err != nil {
		return err
	}
	a.day, a.today, a.loaded = day, spent, true
	return nil
}

// book counts a change of what an exchange has spent. It may be negative, where an
// estimate was too high.
func (m *Meter) book(change store.Spending) {
	a, b := m.link.account, m.link.broker
	a.mu.Lock()
	m.spent.Add(change)
	a.today.Add(change)
	a.mu.Unlock()
	b.mu.Lock()
	b.total.Add(change)
	b.mu.Unlock()
}

// leave takes an exchange off.
func (m *Meter) leave(x *exchange) {
	m.link.account.mu.Lock()
	defer m.link.account.mu.Unlock()
	delete(m.going, x)
}
