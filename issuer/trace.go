package issuer

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"autocertd/internal/printable"
)

// Tracer is an HTTP transport for Config that prints the requests to the CA and its replies: payloads are decoded, and all
// secrets are left out.
type Tracer struct {
	base http.RoundTripper

	mu  sync.Mutex // keeps a request and its reply together
	out io.Writer  // nil shows nothing
}

// NewTracer makes a Tracer that trusts roots, or the system's where there are none. A nil out is silent.
func NewTracer(roots []*x509.Certificate, out io.Writer) *Tracer {
	return &Tracer{base: newTransport(roots, requestsPerOrder), out: out}
}

// RoundTrip implements http.RoundTripper.
func (t *Tracer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.WithContext(req.Context()) // a copy, since the caller's mustn't change
	sent, err := readAgain(&req.Body)
	if err != nil {
		return nil, err
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		t.show(requestText(req, sent) + fmt.Sprintf("<-- no reply: %v\n", err))
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxReply+1), resp.Body} // one more byte, so that the next reader sees that it was cut
	got, err := readAgain(&resp.Body)
	if err != nil {
		t.show(requestText(req, sent) + fmt.Sprintf("<-- %s, and the reply breaks off: %v\n", resp.Status, err))
		return nil, err
	}
	t.show(requestText(req, sent) + replyText(resp, got))
	return resp, nil
}

// readAgain reads a body and puts it back for the next reader.
func readAgain(body *io.ReadCloser) ([]byte, error) {
	if *body == nil || *body == http.NoBody {
		return nil, nil
	}
	data, err := io.ReadAll(*body)
	if closeErr := (*body).Close(); err == nil {
		err = closeErr
	}
	*body = io.NopCloser(bytes.NewReader(data))
	return data, err
}

func (t *Tracer) show(text string) {
	if t.out == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = io.WriteString(t.out, text) // an error has nowhere to go
}

// requestText shows a request: the JWS (RFC 8555 section 6.2) taken apart.
func requestText(req *http.Request, body []byte) string {
	text := fmt.Sprintf("--> %s %s\n", req.Method, printable.Line(req.URL.String()))
	var jws struct{ Protected, Payload string }
	if len(body) == 0 || json.Unmarshal(body, &jws) != nil {
		return text
	}
	text += indent("protected ", decoded(jws.Protected))
	if jws.Payload == "" { // POST-as-GET, section 6.3
		return text
	}
	return text + indent("payload ", decoded(jws.Payload))
}

// decoded shows a part of a JWS.
func decoded(part string) []byte {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return []byte(redacted)
	}
	return pretty(data)
}

// shownHeaders lists the headers of a reply that are printed. The nonce isn't among them.
func shownHeaders() []string { return []string{"Location", "Retry-After", "Link"} }

func replyText(resp *http.Response, body []byte) string {
	text := fmt.Sprintf("<-- %s\n", printable.Line(resp.Status))
	for _, name := range shownHeaders() {
		for _, value := range resp.Header.Values(name) {
			text += fmt.Sprintf("    %s: %s\n", name, printable.Line(value))
		}
	}
	if len(body) == 0 {
		return text
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		return text + indent("", pretty(body))
	}
	return text + indent("", bytes.TrimSpace(body))
}

func indent(label string, text []byte) string {
	return "    " + label + strings.ReplaceAll(printableLines(text), "\n", "\n    ") + "\n"
}

// printableLines makes each line printable. There may be many.
func printableLines(text []byte) string {
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		content := strings.TrimLeft(line, " ")
		out.WriteString(line[:len(line)-len(content)])
		out.WriteString(printable.Line(content))
		if strings.HasSuffix(line, "\n") {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

const redacted = `"(redacted)"`

// pretty writes JSON over several lines, without secrets. Other text isn't shown, since it may hold anything.
func pretty(data []byte) []byte {
	var v any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return []byte(redacted)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if enc.Encode(redact(v)) != nil {
		return []byte(redacted)
	}
	return []byte(printableLines(bytes.TrimSpace(b.Bytes())))
}

// redact leaves out the secrets of an account: keys, nonces, tokens, and signed objects (external account
// bindings, new keys).
func redact(v any) any {
	const hidden = "(redacted)"
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = redact(v[i])
		}
	case map[string]any:
		if _, signed := v["signature"]; signed {
			return hidden
		}
		for name := range v {
			switch name {
			case "jwk", "key", "oldKey", "nonce", "token", "keyAuthorization", "externalAccountBinding":
				v[name] = hidden
			default:
				v[name] = redact(v[name])
			}
		}
	}
	return v
}
