package lifecycle

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"autocertd/internal/store"
	"autocertd/issuer"
)

func orderObject(ca, name string) string { return "orders/" + ca + "/" + name + ".json" }

// keeper remembers the open order of one certificate at one CA.
type keeper struct {
	store  store.Store
	object string
}

// Keep implements issuer.OrderKeeper.
func (k keeper) Keep(ctx context.Context, order issuer.OpenOrder) error {
	data, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return k.store.Save(ctx, k.object, data)
}

// Drop implements issuer.OrderKeeper.
func (k keeper) Drop(ctx context.Context) error { return k.store.Delete(ctx, k.object) }

// load returns the open order, nil when there is none or none that makes sense.
func (k keeper) load(ctx context.Context) (*issuer.OpenOrder, error) {
	data, err := k.store.Load(ctx, k.object)
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	order := new(issuer.OpenOrder)
	if json.Unmarshal(data, order) != nil || order.URL == "" {
		return nil, nil
	}
	return order, nil
}

// OpenHostnames lists the hostnames of all open orders. An order that can't be read counts for none, since it isn't gone on
// with; nor does one whose certificate was saved by a process that died before it could drop the order.
func OpenHostnames(ctx context.Context, store Storage) (hostnames []string, err error) {
	objects, err := store.List(ctx, "orders")
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		order, err := (keeper{store, object}).load(ctx)
		if err != nil || order == nil {
			continue
		}
		if !served(ctx, store, certificateOf(object), order) {
			hostnames = append(hostnames, order.Hostnames...)
		}
	}
	return hostnames, ctx.Err()
}

// certificateOf is the name of the certificate that an order's object is of.
func certificateOf(object string) string { return strings.TrimSuffix(path.Base(object), ".json") }

// served reports whether the certificate that is saved came from the order.
func served(ctx context.Context, store Storage, name string, order *issuer.OpenOrder) bool {
	var issued struct{ Order string }
	data, err := store.Load(ctx, bundleObject(name))
	return err == nil && json.Unmarshal(data, &issued) == nil && issued.Order == order.URL
}

// DropServed drops the orders whose certificates were saved by a process that died before it could drop them: they hold the
// key of a certificate, which is in its bundle, and nobody would look at them before the next renewal. What is being worked on
// is left to who does.
func DropServed(ctx context.Context, store Storage) error {
	objects, err := store.List(ctx, "orders")
	for _, object := range objects {
		if ctx.Err() != nil {
			break
		}
		err = errors.Join(err, dropServed(ctx, store, object))
	}
	return err
}

func dropServed(ctx context.Context, store Storage, object string) error {
	name, keep := certificateOf(object), keeper{store, object}
	if order, err := keep.load(ctx); err != nil || order == nil || !served(ctx, store, name, order) {
		return nil // what can't be read is told where it is needed
	}
	unlock, err := store.TryLock(ctx, lockName(name))
	if err != nil {
		return nil
	}
	defer unlock()
	// Again: whoever held the lock until now may have begun another order.
	if order, err := keep.load(ctx); err != nil || order == nil || !served(ctx, store, name, order) {
		return nil
	}
	return keep.Drop(ctx)
}

// openOrder returns the order to go on with, nil to make a new one. An order that can't be read must not keep the
// certificate from being issued for ever; the next one replaces it.
func (j *job) openOrder(ctx context.Context, keep keeper) *issuer.OpenOrder {
	open, err := keep.load(ctx)
	if err != nil {
		j.cfg.Logger.Warn("open order can't be read; ordering anew", "certificate", j.cert.Name, "object", keep.object, "err", err)
		return nil
	}
	if open != nil && j.bundle != nil && j.hasServed(open) {
		return nil // an earlier process died before it could drop it
	}
	if open != nil && j.insist == forced && (open.Failures > 0 || open.Waited) {
		return nil // who insists has waited for that order already
	}
	return open
}

// hasServed reports whether the bundle came from an order. One that doesn't say where it came from had a key of its own.
func (j *job) hasServed(open *issuer.OpenOrder) bool {
	if open.URL == j.bundle.Order {
		return true
	}
	return !j.cert.ReuseKey && open.Key != "" && open.Key == j.bundle.Key
}

// keyToReuse returns the key that the next certificate is for, nil for a new one.
func (j *job) keyToReuse() []byte {
	b := j.bundle
	if !j.cert.ReuseKey || b == nil || b.Key == "" || b.KeyType != j.cert.KeyType || j.state.compromised() {
		return nil
	}
	return []byte(b.Key)
}

// checkCSR refuses a CSR by a key that others may have.
func (j *job) checkCSR(ctx context.Context) error {
	if j.cert.CSR == nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(j.cert.CSR)
	if err != nil {
		return fmt.Errorf("%s: %w", j.cert.CSRFile, err)
	}
	if j.isCompromised(ctx, csr.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("%s was signed by a key that is compromised; make a new key, and a new CSR with it", j.cert.CSRFile)
	}
	return nil
}

// dropOrders forgets the orders of a certificate that has been issued, those at other CAs too. What stays of them, after
// a crash too, is seen by openOrder.
func (j *job) dropOrders(ctx context.Context) {
	for _, ca := range j.cert.CAs {
		if err := (keeper{j.cfg.Storage, orderObject(ca, j.cert.Name)}).Drop(context.WithoutCancel(ctx)); err != nil {
			j.cfg.Logger.Warn("open order can't be forgotten", "certificate", j.cert.Name, "ca", ca, "err", err)
		}
	}
}
