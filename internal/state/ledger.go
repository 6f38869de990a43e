package state

import (
	"context"

	"autocertd/internal/store"
)

// LedgerLock names the lease of a CA's ledger, and with its folder the object: what was ordered there of late. A CA entry
// that is pointed elsewhere has another.
func LedgerLock(ca, directory string) string { return "budget-" + ca + "-" + short(directory) }

func ledgerKey(ca, directory string) string {
	return ledgers + "/" + ca + "-" + short(directory) + extension
}

// LoadLedger returns the ledger of a CA as it was saved.
func LoadLedger(ctx context.Context, r store.Reader, ca, directory string) ([]byte, error) {
	return r.Load(ctx, ledgerKey(ca, directory))
}

// SaveLedger saves a ledger without waiting for the disk: a power loss may take away the orders of the last seconds, and
// a ledger that it tore is made again from the bundles.
func SaveLedger(ctx context.Context, w store.Writer, ca, directory string, data []byte) error {
	return w.SaveLazily(ctx, ledgerKey(ca, directory), data)
}
