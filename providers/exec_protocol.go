package providers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libdns/libdns"
)

// execVersion is the version of the protocol that requests have and replies must have.
const execVersion = 1

// errNoJSON is an output that isn't a reply in any version.
var errNoJSON = errors.New("it printed no JSON")

// execRequest is what a program reads on its standard input.
type execRequest struct {
	Version int               `json:"version"`
	Action  string            `json:"action"` // append or delete
	Zone    string            `json:"zone"`   // with the trailing dot
	Records []execRecord      `json:"records"`
	Options map[string]string `json:"options"`
}

type execRecord struct {
	Name  string `json:"name"` // relative to the zone, @ for the zone itself
	Type  string `json:"type"` // TXT
	TTL   int    `json:"ttl"`  // in seconds
	Value string `json:"value"`
}

// execReply is what a program writes to its standard output: ok, or an error.
type execReply struct {
	Version   int    `json:"version"`
	OK        bool   `json:"ok"`
	Error     string `json:"error"`
	Retryable bool   `json:"retryable"` // the same request may succeed later
	Whole     bool   `json:"whole"`     // no single record is to blame
}

func newExecRequest(action, zone string, txts []libdns.TXT) execRequest {
	r := execRequest{
		Version: execVersion,
		Action:  action,
		Zone:    zone + ".",
		Records: []execRecord{},
		Options: map[string]string{},
	}
	for _, t := range txts {
		r.Records = append(r.Records, execRecord{Name: t.Name, Type: "TXT", TTL: int(t.TTL / time.Second), Value: t.Text})
	}
	return r
}

// line returns the request as one line, with no more escapes than JSON needs, so that simple tools can read it.
func (r execRequest) line() ([]byte, error) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return line.Bytes(), err
}

// parseExecReply is strict: a reply that is misunderstood would leave records behind, or orders waiting for records.
func parseExecReply(out []byte) (execReply, error) {
	if len(bytes.TrimSpace(out)) == 0 {
		return execReply{}, errors.New("it printed nothing")
	}
	var versioned struct {
		Version *int `json:"version"`
	}
	d := json.NewDecoder(bytes.NewReader(out))
	if err := d.Decode(&versioned); err != nil {
		return execReply{}, errNoJSON
	}
	if versioned.Version == nil || *versioned.Version != execVersion {
		return execReply{}, fmt.Errorf("its version isn't %d, the only one that is known", execVersion)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return execReply{}, errors.New("something follows the reply")
	}
	var reply execReply
	d = json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&reply); err != nil {
		return execReply{}, err
	}
	if reply.OK == (reply.Error != "") {
		return execReply{}, errors.New(`it must hold either "ok": true or an "error" with a text`)
	}
	return reply, nil
}
