package state

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"strings"
	"time"

	"autocertd/internal/cure"
	"autocertd/internal/printable"
	"autocertd/internal/store"
	"autocertd/issuer"
)

// Certificate is what all daemons know about one certificate. What it has of its own can be found out again, so that it is
// saved without waiting for the disk; a new bundle is made durable together with it, in one object. Of the two copies that
// there are then, the one with the higher Revision counts. The lock of the certificate guards it.
type Certificate struct {
	Name     string `json:"name"`
	Revision int64  `json:"revision,omitempty"` // grows with each save

	Wish     string     `json:"wish,omitempty"` // hash of the configuration that was last acted on
	Leaf     Leaf       `json:"leaf"`           // zero before the first certificate
	NextLook time.Time  `json:"next_look"`
	RenewAt  time.Time  `json:"renew_at,omitzero"`
	RenewWhy string     `json:"renew_why,omitempty"`
	Issue    Trouble    `json:"issue,omitzero"`
	ByHand   []string   `json:"by_hand,omitempty"` // the records that a person must add before the order can go on
	ARI      Suggestion `json:"ari,omitzero"`
	Held     Held       `json:"held,omitzero"`
	Working  Working    `json:"working,omitzero"`
	// AskAfter holds the CAs that said when to ask again: the Retry-After of each.
	AskAfter map[string]time.Time `json:"ask_after,omitempty"`
	// Compromised is the fingerprint of a certificate that is to be replaced at once, since others may have its key.
	Compromised string `json:"compromised,omitempty"`
	// BundleMark is the mark of the bundle that was last opened, and found to be of one piece.
	BundleMark string `json:"bundle,omitempty"`

	Bundle  *Bundle                      `json:"-"` // nil before the first, and when it is of no use
	X509    *x509.Certificate            `json:"-"` // the leaf of the bundle
	Orders  map[string]*issuer.OpenOrder `json:"-"` // the open orders, by CA
	Spoiled []string                     `json:"-"` // the CAs at which an order is open for a key that is compromised
	Faults  Faults                       `json:"-"`

	data    []byte          // of the bundle's object
	marked  map[string]bool // the keys of the objects of all compromised keys
	earlier *host           // what the object held of this host before that had an object of its own
}

// Faults are the parts of a certificate that are there and couldn't be read.
type Faults struct {
	Bundle      error            // a *DamagedError when it was read and is of no use
	Orders      map[string]error // by CA
	Compromised error            // of finding out whether the key is
}

// Leaf is what is known of the certificate in the bundle.
type Leaf struct {
	Hostnames   []string  `json:"hostnames,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	CA          string    `json:"ca,omitempty"`

	Revoked Revocation `json:"revoked,omitzero"` // zero unless it is known to be revoked
}

// Working says that a CA hasn't decided about an order yet. That is no failure: the same order is asked again.
type Working struct {
	CA    string    `json:"ca"`
	What  string    `json:"what"` // in words
	Since time.Time `json:"since"`
	Again time.Time `json:"again"` // when the order is asked again
}

// Held says that a certificate is due and isn't ordered, since its CA would refuse the order. That is no failure: it is
// ordered when there is room, the most urgent first.
type Held struct {
	CA     string    `json:"ca"`
	Reason string    `json:"reason"` // the limit, in words
	Limit  string    `json:"limit"`  // its bucket, a budget.Key
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"` // when its turn comes, if nothing more urgent comes before
}

// Trouble is a row of failures that hasn't ended yet.
type Trouble struct {
	Failures int       `json:"failures,omitempty"`
	Error    string    `json:"error,omitempty"` // the problem of the last
	Cure     string    `json:"cure,omitempty"`  // what a person can do about it; states written before have it in Error
	At       time.Time `json:"at,omitzero"`
	RetryAt  time.Time `json:"retry_at,omitzero"`
	// Silent are those that gave no answer at the last try, as in "CA one, DNS corp.example". The first certificate that is issued
	// with their help ends the wait. Outage says that nothing but that went wrong.
	Silent string `json:"silent,omitempty"`
	Outage bool   `json:"outage,omitempty"`
	// AtCA says that a CA had a part in the last failure. CAs count those, so that it isn't repeated without need.
	AtCA bool `json:"at_ca,omitempty"`
}

// Next returns the trouble after one more failure.
func (t Trouble) Next(err error, now, retry time.Time) Trouble {
	return Trouble{
		Failures: t.Failures + 1,
		Error:    printable.Lines(err.Error()),
		Cure:     printable.Lines(cure.Of(err)),
		At:       now.UTC(),
		RetryAt:  retry.UTC(),
	}
}

// Suggestion is the CA's renewal window (RFC 9773) and the moment that was chosen in it, which stays as long as the
// window does.
type Suggestion struct {
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`
	Moment      time.Time `json:"moment,omitzero"`
	ChosenAt    time.Time `json:"chosen_at,omitzero"`
	Explanation string    `json:"explanation_url,omitempty"`
	AskAgain    time.Time `json:"ask_again,omitzero"`
	// Hurries counts the renewals before this certificate that the CA asked for at once, in a row.
	Hurries int `json:"hurries,omitempty"`
}

// Urgent reports whether the CA asks for the renewal at once: the moment was past already when it was chosen, as after a
// mass revocation.
func (s Suggestion) Urgent() bool { return !s.Moment.IsZero() && !s.Moment.After(s.ChosenAt) }

// IsHeld reports whether the certificate waits for room in a CA's limits.
func (c *Certificate) IsHeld() bool { return !c.Held.Until.IsZero() }

// IsRevoked reports whether the certificate is to be replaced since it was revoked.
func (c *Certificate) IsRevoked() bool { return !c.Leaf.Revoked.At.IsZero() }

// IsCompromised reports whether the certificate is to be replaced since others may have its key.
func (c *Certificate) IsCompromised() bool {
	return c.Compromised != "" && c.Compromised == c.Leaf.Fingerprint
}

// Settled returns the bundle without a second look at its key and its leaf, when it is the one that was opened last; else
// nil.
func (c *Certificate) Settled() *Bundle {
	b := new(Bundle)
	if c.data == nil || c.BundleMark != markOf(c.data) || json.Unmarshal(c.data, b) != nil {
		return nil
	}
	b.mark = c.BundleMark
	return b
}

// stored is the JSON of a certificate.
type stored struct {
	*Certificate
	*host
}

// Load returns everything that is known about a certificate, by one scan: the facts, the bundle, the open orders at the CAs,
// and which keys are compromised. It is empty when there is nothing. Parts that couldn't be read are among its Faults; without
// the facts there is an error.
func Load(ctx context.Context, r store.Reader, name string, cas []string) (*Certificate, error) {
	keys := []string{certificateKey(name), bundleKey(name), compromised}
	for _, ca := range cas {
		keys = append(keys, OrderKey(ca, name))
	}
	objects, err := scan(ctx, r, keys...)
	if err != nil {
		return nil, err
	}
	c, err := facts(name, objects)
	if err != nil {
		return nil, err
	}
	if c.data != nil {
		c.Bundle, c.X509, c.Faults.Bundle = open(c.data)
	}
	c.marked = map[string]bool{}
	for key, object := range objects {
		if strings.HasPrefix(key, compromised+"/") {
			c.marked[key], c.Faults.Compromised = true, cmp.Or(object.Err, c.Faults.Compromised)
		}
	}
	c.Orders, c.Faults.Orders = map[string]*issuer.OpenOrder{}, map[string]error{}
	for _, ca := range cas {
		order, err := parseOrder(objects[OrderKey(ca, name)])
		switch {
		case err != nil:
			c.Faults.Orders[ca] = err
		case order != nil && c.IsMarked(PublicKey(order.Key)):
			c.Spoiled = append(c.Spoiled, ca)
		case order != nil:
			c.Orders[ca] = order
		}
	}
	if c.X509 != nil {
		c.Compromised = ""
		if c.IsMarked(c.X509.RawSubjectPublicKeyInfo) {
			c.Compromised = c.Bundle.Describe(c.X509).Fingerprint
		}
	}
	return c, nil
}

// LoadFacts is Load without opening the bundle, and without what is kept in other objects.
func LoadFacts(ctx context.Context, r store.Reader, name string) (*Certificate, error) {
	objects, err := scan(ctx, r, certificateKey(name), bundleKey(name))
	if err != nil {
		return nil, err
	}
	return facts(name, objects)
}

// Known is what is known of a certificate, and of its files on one host.
type Known struct {
	*Certificate
	Deployment *Deployment
	Err        error // why nothing is known
}

// LoadAll returns what is known of all certificates by their names, by one scan. One that can't be read hides no other.
func LoadAll(ctx context.Context, r store.Reader, node string) (map[string]Known, error) {
	all := map[string]Known{}
	objects := map[string]store.Object{} // of the bundles the facts alone
	for object, err := range r.Scan(ctx, bundles, certificates, deployments+"/"+node) {
		if err != nil {
			return nil, err
		}
		name, ok := nameOf(object.Key)
		if !ok {
			continue
		}
		if object.Key == bundleKey(name) && object.Err == nil {
			c := &Certificate{}
			c.supersede(name, object.Data)
			all[name] = Known{Certificate: c}
			continue
		}
		if _, known := all[name]; !known {
			all[name] = Known{}
		}
		objects[object.Key] = object
	}
	for name, k := range all {
		newer := k.Certificate
		if k.Certificate, k.Err = facts(name, objects); k.Err == nil {
			if newer != nil && newer.Revision > k.Revision {
				newer.earlier = k.earlier
				k.Certificate = newer
			}
			k.Deployment, k.Err = deployment(name, objects[deploymentKey(node, name)], objects[certificateKey(name)])
		}
		all[name] = k
	}
	return all, ctx.Err()
}

// scan returns the objects with the keys, or below them.
func scan(ctx context.Context, r store.Reader, keys ...string) (map[string]store.Object, error) {
	objects := map[string]store.Object{}
	for object, err := range r.Scan(ctx, keys...) {
		if err != nil {
			return nil, err
		}
		objects[object.Key] = object
	}
	return objects, ctx.Err()
}

// facts returns the facts of a certificate. Those that can't be decoded were torn by a power loss; they are found out again.
func facts(name string, objects map[string]store.Object) (*Certificate, error) {
	c := &Certificate{Name: name}
	if own := objects[certificateKey(name)]; own.Err != nil {
		return nil, own.Err
	} else if own.Key != "" {
		earlier := &host{}
		if json.Unmarshal(own.Data, &stored{c, earlier}) != nil || c.Name != name {
			c = &Certificate{Name: name}
		} else if !earlier.empty() {
			c.earlier = earlier
		}
	}
	if issued := objects[bundleKey(name)]; issued.Err != nil {
		c.Faults.Bundle = issued.Err
	} else if issued.Key != "" {
		if c.BundleMark != markOf(issued.Data) { // else the facts were saved after it
			c.supersede(name, issued.Data)
		}
		c.data = issued.Data
	}
	return c, nil
}

// supersede takes over the facts that were saved with a bundle, if those are later.
func (c *Certificate) supersede(name string, bundle []byte) {
	var issued struct{ State *Certificate }
	if json.Unmarshal(bundle, &issued) == nil && issued.State != nil && issued.State.Name == name && issued.State.Revision > c.Revision {
		earlier := c.earlier
		*c = *issued.State
		c.BundleMark, c.earlier = markOf(bundle), earlier
	}
}

// IsMarked reports whether a public key was marked as compromised. A note that can't be read is one: it was made for a reason.
func (c *Certificate) IsMarked(spki []byte) bool {
	return len(spki) > 0 && c.marked[compromisedKey(spki)]
}

// Save replaces the facts without waiting for the disk.
func Save(ctx context.Context, w store.Writer, c *Certificate) error {
	c.Revision++
	data, err := json.Marshal(stored{c, c.earlier})
	if err != nil {
		return err
	}
	return w.SaveLazily(context.WithoutCancel(ctx), certificateKey(c.Name), data)
}

// SaveIssued makes the bundle durable together with the facts. Dying after it leaves an order that has served and files of
// the old certificate; the next look sees to both.
func SaveIssued(ctx context.Context, w store.Writer, c *Certificate) error {
	c.Revision++
	c.Bundle.State = c
	defer func() { c.Bundle.State = nil }()
	err := SaveBundle(context.WithoutCancel(ctx), w, c.Bundle)
	if err == nil {
		c.BundleMark = c.Bundle.mark
	}
	return err
}
