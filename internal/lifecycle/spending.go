package lifecycle

import (
	"context"
	"time"

	"autocertd/internal/budget"
	"autocertd/internal/config"
	"autocertd/internal/state"
	"autocertd/issuer"
)

// spending is the use that one attempt makes of a CA's limits. It sees the order on its way to the keeper.
type spending struct {
	state.OrderKeeper
	ledger    *ledger
	ca        config.CA
	keys      []budget.Key // buckets that a new order takes from
	otherwise []budget.Key // likewise, when the CA doesn't take it for the exempt renewal that it should be
	id        string       // of the noted order; "" when there is none
	ordered   bool         // and the CA has answered its order
	order     string       // URL of the order that is open at the CA
	renewal   bool         // the CA took that order for a renewal
}

// Keep implements issuer.OrderKeeper. Most orders were noted before they were sent. One that takes the place of another is
// noted here, since the CA has counted both.
func (s *spending) Keep(ctx context.Context, order issuer.OpenOrder) error {
	if !order.Replaces && len(s.keys) == 0 {
		s.keys = s.otherwise
	}
	if order.URL != s.order && len(s.keys) > 0 {
		if s.ordered || s.id == "" {
			err := s.ledger.change(ctx, s.ca, func(b *budget.Ledger, now time.Time) bool {
				if s.id == "" { // the order that was open is of no use any more
					s.id = s.ledger.beginLocked(b, s.Lock(), s.keys, now)
				} else { // the order before came to nothing; only that it was ordered counts
					b.Spend(budget.OrdersOnly(s.keys), now)
				}
				return true
			})
			if err != nil {
				return err
			}
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
		err := s.ledger.change(ctx, s.ca, func(b *budget.Ledger, _ time.Time) bool {
			b.Return(keys)
			return true
		})
		if err != nil {
			return err
		}
	}
	return s.Drop(ctx)
}

// endTimeout bounds how long a process that shall stop waits for another to change a ledger.
const endTimeout = 5 * time.Second

// end counts the tokens that an attempt has used. A certificate counts when it is issued, or still can be; dying before that
// leaves it counted too. A failure is saved at once.
func (s *spending) end(ctx context.Context, err error) error {
	failed := budget.FailureKeys(s.ca.Limits(), issuer.FailedHostnames(err))
	lost := err != nil && s.order == ""
	switch {
	case len(failed) > 0, lost && s.id != "":
	case s.id != "":
		s.ledger.end(s.id)
		return nil
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return s.ledger.change(ctx, s.ca, func(b *budget.Ledger, now time.Time) bool {
		keys := b.End(s.id)
		if lost {
			keys = budget.OrdersOnly(keys) // if the CA hasn't answered, it may have counted it
		}
		b.Spend(keys, now)
		b.Spend(failed, now)
		return true
	})
}
