package state

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"autocertd/internal/store"
)

// LocalNode names the host of a store that is a directory of its own. It isn't the host's name, so that a host that gets
// another name, as containers do, keeps its deployments.
const LocalNode = "local"

// Deployment is what one host knows about its outputs of one certificate. It is saved without waiting for the disk: a lost
// one costs a superfluous reload, nothing else.
type Deployment struct {
	Name    string   `json:"name"`
	Outputs Outputs  `json:"outputs,omitempty"` // the mark of what was completed, by deploy.Output.ID
	Trouble Trouble  `json:"trouble,omitzero"`
	Pending []string `json:"pending,omitempty"` // what is still to do, in words
}

// Outputs holds the steps of each output that have succeeded, by deploy.Output.ID.
type Outputs map[string]Done

// Done holds the steps of one output that have succeeded, each by its mark.
type Done struct {
	// Change is the change of the files that the steps followed, as their marker calls it; "" once all of them were done.
	Change string   `json:"change,omitempty"`
	Steps  []string `json:"steps"`

	Whole string `json:"-"` // one mark for all steps, as earlier versions kept it
}

// UnmarshalJSON also reads what earlier versions kept.
func (d *Done) UnmarshalJSON(data []byte) error {
	*d = Done{}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &d.Whole)
	}
	type plain Done
	return json.Unmarshal(data, (*plain)(d))
}

// MarshalJSON writes what earlier versions kept as they did, until a pass has replaced it.
func (d Done) MarshalJSON() ([]byte, error) {
	if d.Whole != "" {
		return json.Marshal(d.Whole)
	}
	type plain Done
	return json.Marshal(plain(d))
}

// Has reports whether a step has succeeded.
func (d *Done) Has(mark string) bool { return slices.Contains(d.Steps, mark) }

// Add notes that a step has succeeded.
func (d *Done) Add(mark string) {
	if !d.Has(mark) {
		d.Steps = append(d.Steps, mark)
	}
}

// host is what the object of a certificate held of the host, before there were deployments.
type host struct {
	Deploy  Trouble  `json:"deploy,omitzero"`
	Pending []string `json:"pending,omitempty"`
	Outputs Outputs  `json:"outputs,omitempty"`
}

func (h *host) empty() bool { return h.Deploy == Trouble{} && len(h.Pending)+len(h.Outputs) == 0 }

// LoadDeployment returns the deployment of a certificate on a host, an empty one when there is none. One that can't be
// decoded was torn by a power loss. One that isn't there yet is what the object of the certificate held of this host.
func LoadDeployment(ctx context.Context, r store.Reader, node, name string) (*Deployment, error) {
	objects, err := scan(ctx, r, deploymentKey(node, name))
	own := objects[deploymentKey(node, name)]
	if err == nil && own.Key == "" {
		objects, err = scan(ctx, r, certificateKey(name))
	}
	if err != nil {
		return nil, err
	}
	return deployment(name, own, objects[certificateKey(name)])
}

// deployment makes a deployment of its object, or of that of the certificate.
func deployment(name string, own, certificate store.Object) (*Deployment, error) {
	d := &Deployment{Name: name}
	if own.Key == "" {
		earlier := &host{}
		if certificate.Err == nil && json.Unmarshal(certificate.Data, earlier) == nil {
			d.take(earlier)
		}
		return d, certificate.Err
	}
	if own.Err == nil && (json.Unmarshal(own.Data, d) != nil || d.Name != name) {
		d = &Deployment{Name: name}
	}
	return d, own.Err
}

func (d *Deployment) take(h *host) { d.Outputs, d.Trouble, d.Pending = h.Outputs, h.Deploy, h.Pending }

// SaveDeployment replaces the deployment of a certificate on a host.
func SaveDeployment(ctx context.Context, w store.Writer, node string, d *Deployment) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return w.SaveLazily(context.WithoutCancel(ctx), deploymentKey(node, d.Name), data)
}

// DivideHost gives what the object of a certificate held of this host an object of its own. Until that is saved, every save
// of the certificate keeps it.
func DivideHost(ctx context.Context, r store.Reader, w store.Writer, node string, c *Certificate) error {
	if c.earlier == nil {
		return nil
	}
	objects, err := scan(ctx, r, deploymentKey(node, c.Name))
	if err == nil && len(objects) == 0 {
		d := &Deployment{Name: c.Name}
		d.take(c.earlier)
		err = SaveDeployment(ctx, w, node, d)
	}
	if err == nil {
		c.earlier = nil
	}
	return err
}

// maxFailures bounds what is counted. It is far beyond what can happen.
const maxFailures = 1_000_000

// The furthest moments that are plausible, from now.
const (
	// LongestWait bounds the Retry-After of a CA, so that a wrong header doesn't end renewal for good. The longest that is
	// meant is a week.
	LongestWait = 7 * 24 * time.Hour

	longestLook = 2 * time.Hour
	longestAsk  = 20 * time.Hour
	ahead       = time.Minute // clocks are put right by a second now and then
)

// Sanitize takes out what would make a deployment wait for years: the moments that a clock which was ahead has left.
func (d *Deployment) Sanitize(now time.Time) { d.Trouble.sanitize(now) }

// sanitize reports whether the trouble was noted by a clock that was ahead.
func (t *Trouble) sanitize(now time.Time) (other bool) {
	other = t.At.After(now.Add(ahead))
	if other || t.RetryAt.After(now.Add(ahead).Add(LongestWait)) {
		t.RetryAt = time.Time{}
	}
	t.Failures = min(max(t.Failures, 0), maxFailures)
	return other
}

// Sanitize takes out of the facts what would make everything wait for years: the moments that a clock which was ahead has
// left, and those that no clock can have.
func (c *Certificate) Sanitize(now time.Time) {
	latest := now.Add(ahead)
	if c.NextLook.After(now.Add(longestLook)) {
		c.NextLook = time.Time{}
	}
	if c.Issue.sanitize(now) {
		c.AskAfter = nil // noted by the same clock
	}
	c.ARI.Hurries = max(c.ARI.Hurries, 0)
	if c.ARI.ChosenAt.After(latest) || c.ARI.AskAgain.After(now.Add(longestAsk)) {
		c.ARI = Suggestion{}
	}
	if c.Held.Since.After(latest) {
		c.Held = Held{}
	}
	if c.Working.Since.After(latest) || c.Working.Again.After(latest.Add(LongestWait)) {
		c.Working.Since, c.Working.Again = now.UTC(), now.UTC()
	}
	for ca, until := range c.AskAfter {
		if until.After(latest.Add(LongestWait)) {
			delete(c.AskAfter, ca)
		}
	}
}
