package lifecycle

import (
	"autocertd/internal/state"
	"context"
	"strconv"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/issuer"
)

// spending is the use that one attempt makes of a CA's limits. It watches the order on its way to the keeper.
type spending struct {
	state.OrderKeeper
	budgets   *budgets
	ca        config.CA
	hostnames []string
	keys      []budget.Key // what a new order takes
	otherwise []budget.Key // what it takes when the CA doesn't take it as a renewal, though it was to be free as one
	id        string       // of what is under way; "" when nothing is
	ordered   bool         // and the CA has answered its order
	order     string       // URL of the order that is open at the CA
	renewal   bool         // which the CA took as one
}

// begin notes the order before it is sent.
func (s *spending) begin(l *budget.Ledger, now time.Time) {
	s.budgets.runs++
	s.id = s.budgets.process + strconv.Itoa(s.budgets.runs)
	l.Begin(budget.Running{ID: s.id, Lease: s.Lock(), Since: now.UTC(), Keys: s.keys})
}

// Keep implements issuer.OrderKeeper. The CA has answered the order, so it is counted.
func (s *spending) Keep(ctx context.Context, order issuer.OpenOrder) error {
	if !order.Replaces && len(s.keys) == 0 {
		s.keys = s.otherwise
	}
	if order.URL != s.order && len(s.keys) > 0 {
		err := s.budgets.change(ctx, s.ca, func(l *budget.Ledger, now time.Time) bool {
			if s.ordered { // the order before came to nothing, and another was made; only that it was ordered counts
				l.End(s.id)
				s.id = ""
			}
			if s.id == "" { // the order that was open is of no use any more
				s.begin(l, now)
			}
			l.Ordered(s.id, now)
			return true
		})
		if err != nil {
			return err
		}
		s.ordered = true
	}
	s.order = order.URL
	return s.OrderKeeper.Keep(ctx, order)
}

// Drop implements issuer.OrderKeeper. No certificate comes of the order.
func (s *spending) Drop(ctx context.Context) error {
	s.order = ""
	return s.OrderKeeper.Drop(ctx)
}

// Void implements issuer.Voider. An order that an earlier attempt left open was counted as the certificate that might still
// come of it. None came. One that was a renewal may have been free, and gives nothing back.
func (s *spending) Void(ctx context.Context) error {
	if keys := budget.NoOrders(s.keys); s.order != "" && s.id == "" && !s.renewal && len(keys) > 0 {
		err := s.budgets.change(ctx, s.ca, func(l *budget.Ledger, _ time.Time) bool {
			l.Return(keys)
			return true
		})
		if err != nil {
			return err
		}
	}
	return s.Drop(ctx)
}

// endTimeout bounds how long a process that is told to stop waits for another to change a ledger.
const endTimeout = 5 * time.Second

// end settles what an attempt has used. Certificates count when they are issued, or still can be; dying before it leaves
// them counted as well.
func (s *spending) end(ctx context.Context, err error) error {
	var failed []budget.Key
	if names := issuer.FailedHostnames(err); len(names) > 0 {
		failed = budget.FailureKeys(s.ca.Limits(), names)
	}
	if s.id == "" && len(failed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return s.budgets.change(ctx, s.ca, func(l *budget.Ledger, now time.Time) bool {
		keys := l.End(s.id)
		if err != nil && s.order == "" {
			keys = budget.OrdersOnly(keys) // if the CA hasn't answered, it may have counted it
		}
		l.Spend(keys, now)
		l.Spend(failed, now)
		return true
	})
}
