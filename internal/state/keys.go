// Package state knows the objects of the store: their keys, their JSON, which of them are durable, and what a damaged one
// means. A [Certificate] belongs to all daemons, a [Deployment] to one host. When something is done, and what is decided from
// these facts, is left to lifecycle and deploy.
package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"autocertd/internal/store"
)

// Store keeps the objects, and the leases of those who change them.
type Store interface {
	store.Store
	store.Leaser
}

// The folders of objects that there is one of for each certificate, order, key or host.
const (
	certificates = "states"      // states/NAME.json: Certificate, lazy
	bundles      = "bundles"     // bundles/NAME.json: Bundle, durable
	orders       = "orders"      // orders/CA/NAME.json: an open order, durable
	deployments  = "deployments" // deployments/NODE/NAME.json: Deployment, lazy
	compromised  = "compromised" // compromised/SHA256.json: CompromisedKey, durable
	damaged      = "damaged"     // damaged/NAME-SHA256.json: a bundle of no use, durable
	ledgers      = "budgets"     // budgets/CA-SHA256.json: what was ordered at a CA, lazy
	accounts     = "accounts"    // accounts/CA-SHA256/…: an account's key and URL, durable
)

// The objects of which there is one, and the folder of the journal of TXT records.
const (
	daemonKey        = "daemon.json"        // Daemon, lazy
	doingKey         = "doing.json"         // what it works on, lazy
	configurationKey = "configuration.json" // Configuration, lazy
	JournalKey       = "journal"
	ProbeKey         = "probe" // written to find out whether there is room
)

const extension = ".json"

func certificateKey(name string) string { return certificates + "/" + name + extension }
func bundleKey(name string) string      { return bundles + "/" + name + extension }

// OrderKey names the object of the open order of a certificate at a CA.
func OrderKey(ca, name string) string { return orders + "/" + ca + "/" + name + extension }
func deploymentKey(node, name string) string {
	return deployments + "/" + node + "/" + name + extension
}

// nameOf returns the name of the certificate that an object belongs to, from the last part of its key.
func nameOf(key string) (name string, ok bool) {
	return strings.CutSuffix(key[strings.LastIndexByte(key, '/')+1:], extension)
}

// Lock names the lease of a certificate: its holder alone changes the Certificate, the bundle and the orders.
func Lock(name string) string { return "certificate-" + name }

// DeploymentLock names the lease of a certificate's deployment on a host: its holder alone changes the files there.
func DeploymentLock(node, name string) string { return "deployment-" + node + "-" + name }

// AccountKey names the folder of an account's objects. The hash is of the directory URL, so that a CA entry that is pointed
// elsewhere neither uses nor loses the account there.
func AccountKey(ca, directory string) string { return accounts + "/" + ca + "-" + short(directory) }

// AccountNames returns the names of the CAs whose accounts at a directory are kept.
func AccountNames(ctx context.Context, r store.Reader, directory string) (names []string, err error) {
	keys, err := r.List(ctx, accounts)
	for _, key := range keys {
		name, kept := strings.CutSuffix(strings.TrimPrefix(key, accounts+"/"), "-"+short(directory)+"/account.json")
		if kept && name != "" {
			names = append(names, name)
		}
	}
	return names, err
}

// short is a hash that is long enough to keep a few URLs or bundles apart.
func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
