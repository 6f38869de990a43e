package state

import (
	"context"
	"encoding/json"
	"path"

	"autocertd/internal/cure"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// OrderKeeper keeps the open order of one certificate at one CA. Its key is durable when Keep returns nil.
type OrderKeeper struct {
	writer store.Writer
	key    string
}

// KeepOrder returns the keeper of an order.
func KeepOrder(w store.Writer, ca, name string) OrderKeeper {
	return OrderKeeper{w, OrderKey(ca, name)}
}

// Keep implements issuer.OrderKeeper.
func (k OrderKeeper) Keep(ctx context.Context, order issuer.OpenOrder) error {
	data, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return k.writer.Save(ctx, k.key, data)
}

// Drop implements issuer.OrderKeeper.
func (k OrderKeeper) Drop(ctx context.Context) error { return k.writer.Delete(ctx, k.key) }

// Lock names the lease of the order's certificate.
func (k OrderKeeper) Lock() string {
	name, _ := nameOf(k.key)
	return Lock(name)
}

// LoadOrder returns the open order of a certificate at a CA, nil when there is none or none that makes sense.
func LoadOrder(ctx context.Context, r store.Reader, ca, name string) (*issuer.OpenOrder, error) {
	return loadOrder(ctx, r, OrderKey(ca, name))
}

func loadOrder(ctx context.Context, r store.Reader, key string) (*issuer.OpenOrder, error) {
	objects, err := scan(ctx, r, key)
	if err != nil {
		return nil, err
	}
	return parseOrder(objects[key])
}

func parseOrder(object store.Object) (*issuer.OpenOrder, error) {
	order := new(issuer.OpenOrder)
	if object.Err != nil || json.Unmarshal(object.Data, order) != nil || order.URL == "" {
		return nil, object.Err
	}
	return order, nil
}

// OpenOrders returns the names of the certificates that have an open order at one of their CAs.
func OpenOrders(ctx context.Context, s store.Store) (map[string]bool, error) {
	keys, err := s.List(ctx, orders)
	open := map[string]bool{}
	for _, key := range keys {
		if name, ok := nameOf(key); ok {
			open[name] = true
		}
	}
	return open, err
}

// OpenHostnames lists the hostnames of all open orders. An order that can't be read counts for none, since it isn't gone on
// with; nor does one whose certificate was saved by a process that died before it could drop the order.
func OpenHostnames(ctx context.Context, s store.Store) (hostnames []string, err error) {
	for o, err := range s.Scan(ctx, orders) {
		if err != nil {
			return nil, err
		}
		if order, _ := parseOrder(o); order != nil && !served(ctx, s, o.Key, order) {
			hostnames = append(hostnames, order.Hostnames...)
		}
	}
	return hostnames, ctx.Err()
}

// served reports whether the bundle of the certificate came from the order with that key.
func served(ctx context.Context, r store.Reader, key string, order *issuer.OpenOrder) bool {
	var issued struct{ Order string }
	data, err := r.Load(ctx, bundles+"/"+path.Base(key))
	return err == nil && json.Unmarshal(data, &issued) == nil && issued.Order == order.URL
}

// DropServed drops the orders whose certificates were saved by a process that died before it could drop them: they hold the
// key of a certificate, which is in its bundle, and nobody would look at them before the next renewal. Certificates that
// are worked on are left to their processes.
func DropServed(ctx context.Context, s Store) error {
	keys, err := s.List(ctx, orders)
	for _, key := range keys {
		if ctx.Err() != nil {
			break
		}
		err = cure.Join(err, dropServed(ctx, s, key))
	}
	return err
}

func dropServed(ctx context.Context, s Store, key string) error {
	name, ok := nameOf(key)
	has := func() bool {
		order, err := loadOrder(ctx, s, key)
		return err == nil && order != nil && served(ctx, s, key, order) // what can't be read is told where it is needed
	}
	if !ok || !has() {
		return nil
	}
	lease, err := s.Try(ctx, Lock(name))
	if err != nil {
		return nil
	}
	defer lease.Release()
	if !has() { // whoever held the lease until now may have begun another order
		return nil
	}
	return lease.Delete(ctx, key)
}
