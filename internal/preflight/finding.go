package preflight

import "autocertd/internal/cure"

// Status is how bad a finding is.
type Status string

// A failure means that issuing would fail, a warning that it may fail one day or not do what was meant.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failure Status = "failure"
)

// Finding is one thing that was looked at.
type Finding struct {
	Subject string `json:"subject"` // a certificate, hostname, zone, CA or output, as the configuration names it
	Check   string `json:"check"`   // what was looked at, one or two words: "update", "servers", "CAA"
	Status  Status `json:"status"`
	Text    string `json:"text"`           // what was found, one sentence without a full stop
	Why     string `json:"why,omitempty"`  // why it matters; empty when all is well
	Cure    string `json:"cure,omitempty"` // what to paste and where; empty when all is well

	Certificates []string `json:"-"` // names of those that need what was looked at, in no order
}

// Said returns all of a finding but its certificates, to be compared.
func (f Finding) Said() [6]string {
	return [...]string{f.Subject, f.Check, string(f.Status), f.Text, f.Why, f.Cure}
}

// forCertificates adds certificates to findings that have none.
func forCertificates(names []string, list ...Finding) []Finding {
	for i := range list {
		if list[i].Certificates == nil {
			list[i].Certificates = names
		}
	}
	return list
}

// say takes problem and cure over from an error.
func (f *Finding) say(err error) { f.Text, f.Cure = err.Error(), cure.Of(err) }
