package migrate

import (
	"fmt"
	"slices"
	"strings"
)

// A Method is how a client wrote records, as far as it is known. It holds no secret, only where to look for one.
type Method struct {
	Name    string // what the client calls it
	From    string // the file of its settings
	Server  string
	KeyName string
	KeyAlg  string
	KeyFile string
	Secret  string // the name of the secret in From
	Program string // that wrote the records
	HTTP    bool   // it wrote no records: the CA asked by HTTP or TLS
}

// method notes how records were written, each way once.
func (r *reader) method(m Method) {
	if m.Name != "" && !slices.Contains(r.Methods, m) {
		r.Methods = append(r.Methods, m)
	}
}

// stanza is a provider that does the same, in comments: what is known of it, for a person to complete.
func (m Method) stanza() string {
	var b strings.Builder
	words := fmt.Sprintf("# How records were written: %s", oneLine(m.Name))
	if m.HTTP {
		words = fmt.Sprintf("# No records were written so far: the CA asked by HTTP or TLS (%s). Here it asks for TXT records", oneLine(m.Name))
	}
	if m.From != "" {
		words += ", set up in " + oneLine(m.From)
	}
	if m.Program != "" {
		words += ", by " + oneLine(m.Program)
	}
	fmt.Fprintln(&b, words+".")
	line := func(key, value string) { fmt.Fprintf(&b, "#%-8s = %s\n", key, value) }
	switch strings.NewReplacer("dns-", "", "dns_", "").Replace(m.Name) {
	case "rfc2136", "nsupdate":
		fmt.Fprintln(&b, "#[provider.bind]")
		line("type", quote("rfc2136"))
		line("server", quote(m.Server))
		if m.KeyFile != "" {
			line("key_file", quote(m.KeyFile))
			break
		}
		line("key_name", quote(strings.ToLower(strings.TrimSuffix(m.KeyName, "."))))
		line("key_alg", quote(strings.ToLower(m.KeyAlg)))
		line("key", `{ file = "" }  # a file that holds only what stands at `+oneLine(m.Secret))
	case "cloudflare", "cf":
		fmt.Fprintln(&b, "#[provider.cloudflare]")
		line("type", quote("cloudflare"))
		line("api_token", `{ file = "" }  # a file that holds only what stands at `+oneLine(m.Secret))
	default:
		fmt.Fprintln(&b, "# docs/providers.md shows what can take its place; for BIND:")
		fmt.Fprintln(&b, "#[provider.bind]")
		line("type", quote("rfc2136"))
		line("server", quote(""))
		line("key_file", quote("/etc/autocertd/tsig.key"))
	}
	return b.String()
}
