package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"autocertd/internal/knownca"
)

// defaultKeyType is what a hostname alone gets where the configuration says nothing else.
const defaultKeyType = "ecdsa-p256"

// Known is what the configuration has already. The zero value is an empty one.
type Known struct {
	CAs       []string
	KeyTypes  []string // of its certificates
	Names     []string // of its certificates
	Providers int
}

// page writes the configuration of a tree.
type page struct {
	bytes.Buffer
	tree    *Tree
	known   Known
	ca      string // what a certificate gets that doesn't name its CA; "" when each has to
	keyType string // likewise
}

// TOML is the configuration that takes the place of the client's, less what is known already. It holds no secret: where
// one is needed, or a choice, a comment says so.
func (t *Tree) TOML(known Known) string {
	p := &page{tree: t, known: known}
	p.settleDefaults()
	fmt.Fprintf(p, "# Taken over from %s in %s.\n", t.Client, oneLine(t.Dir))
	p.hostnames()
	for _, a := range t.Accounts {
		p.account(a)
	}
	if p.known.Providers == 0 {
		for _, m := range t.Methods {
			p.WriteString("\n" + m.stanza())
		}
	}
	p.defaults()
	for _, c := range t.Certificates {
		if !p.bare(c) && !slices.Contains(known.Names, c.Name) {
			p.certificate(c)
		}
	}
	p.outputs()
	return p.String()
}

// settleDefaults finds what need not be said with each certificate. Where there is a configuration, its defaults aren't
// ours to set: then only what certainly holds is left unsaid.
func (p *page) settleDefaults() {
	cas := slices.Clone(p.known.CAs)
	for _, a := range p.tree.Accounts {
		if !slices.Contains(cas, a.CA) {
			cas = append(cas, a.CA)
		}
	}
	switch {
	case len(p.known.CAs) == 0 && len(cas) > 0, len(cas) == 1:
		p.ca = cas[0] // the most used
	}
	others := func(keyType string) bool { return keyType != defaultKeyType }
	if len(p.known.CAs)+len(p.known.Names) == 0 {
		p.keyType = p.commonKeyType()
	} else if !slices.ContainsFunc(p.known.KeyTypes, others) {
		p.keyType = defaultKeyType
	}
}

// commonKeyType is the type of most certificates.
func (p *page) commonKeyType() string {
	count, best := map[string]int{}, defaultKeyType
	for _, c := range p.tree.Certificates {
		if c.KeyType != "" {
			if count[c.KeyType]++; count[c.KeyType] > count[best] {
				best = c.KeyType
			}
		}
	}
	return best
}

// bare reports whether the hostname alone says all about a certificate.
func (p *page) bare(c *Certificate) bool {
	usual := len(c.Hostnames) == 1 && c.Name == usable(c.Hostnames[0]) && c.Profile == ""
	return usual && p.ca != "" && p.caOf(c) == p.ca && p.keyTypeOf(c) == p.keyType
}

// caOf is the CA that a certificate came from, the usual one when that isn't known.
func (p *page) caOf(c *Certificate) string {
	if c.Account == nil {
		return p.ca
	}
	return c.Account.CA
}

// keyTypeOf is the type of a certificate's key, the usual one when the configuration has no name for it.
func (p *page) keyTypeOf(c *Certificate) string {
	if c.KeyType == "" {
		return p.keyType
	}
	return c.KeyType
}

func (p *page) hostnames() {
	var list []string
	for _, c := range p.tree.Certificates {
		if p.bare(c) && !slices.Contains(p.known.Names, c.Name) {
			list = append(list, "  "+quote(c.Hostnames[0])+",\n")
		}
	}
	if len(list) > 0 {
		fmt.Fprintf(p, "hostnames = [\n%s]\n", strings.Join(list, ""))
	}
}

func (p *page) account(a *Account) {
	if slices.Contains(p.known.CAs, a.CA) {
		return
	}
	fmt.Fprintf(p, "\n[ca.%s]\ndirectory    = %s\n", key(a.CA), quote(a.Directory))
	if a.Email != "" && !strings.Contains(a.Email, "$") {
		fmt.Fprintf(p, "email        = %s\n", quote(a.Email))
	}
	if p.tree.Roots != "" && knownca.At(a.Directory).Name == "" {
		fmt.Fprintf(p, "roots        = [%s]\n", quote(p.tree.Roots))
	}
	fmt.Fprintln(p, "accept_terms = true")
}

// defaults are written only into an empty configuration.
func (p *page) defaults() {
	var lines string
	if p.ca != "" && len(p.tree.Accounts) > 1 {
		lines = fmt.Sprintf("ca       = [%s]\n", quote(p.ca))
	}
	if p.keyType != "" && p.keyType != defaultKeyType {
		lines += fmt.Sprintf("key_type = %s\n", quote(p.keyType))
	}
	if lines != "" && len(p.known.CAs) == 0 {
		fmt.Fprintf(p, "\n[defaults]\n%s", lines)
	}
}

func (p *page) certificate(c *Certificate) {
	quoted := make([]string, len(c.Hostnames))
	for i, h := range c.Hostnames {
		quoted[i] = quote(h)
	}
	fmt.Fprintf(p, "\n[[certificate]]\nname      = %s\nhostnames = [%s]\n", quote(c.Name), strings.Join(quoted, ", "))
	if ca := p.caOf(c); ca != p.ca {
		fmt.Fprintf(p, "ca        = [%s]\n", quote(ca))
	}
	if keyType := p.keyTypeOf(c); keyType != p.keyType {
		fmt.Fprintf(p, "key_type  = %s\n", quote(keyType))
	}
	if c.Profile != "" {
		fmt.Fprintf(p, "profile   = %s\n", quote(c.Profile))
	}
}

// outputs are a proposal, since it is a choice where services read from now on.
func (p *page) outputs() {
	groups := p.groups()
	if p.tree.Live == "" {
		fmt.Fprintf(p, "\n# Services that read files in %s would go on with old certificates: let them read those of an output.\n", oneLine(p.tree.Dir))
	}
	if len(groups) == 0 && p.tree.Live != "" {
		groups = []group{{match: []string{"*"}}}
	}
	dir := p.tree.Live
	if dir != "" && len(groups) > 0 {
		fmt.Fprintln(p, "\n# To write the files where services read them now:")
	} else if len(groups) > 0 {
		dir = "/etc/ssl/autocertd/{name}"
		fmt.Fprintln(p, "\n# To write the files where services can read them, and to have those reloaded:")
	}
	for _, g := range groups {
		quoted := make([]string, len(g.match))
		for i, m := range g.match {
			quoted[i] = quote(m)
		}
		fmt.Fprintf(p, "#[[output]]\n#match  = [%s]\n#dir    = %s\n", strings.Join(quoted, ", "), quote(dir))
		if len(g.units) > 0 {
			fmt.Fprintf(p, "#reload = %s\n", quoteList(g.units))
		}
		p.copies(g, dir)
	}
	if len(p.tree.Hooks) > 0 {
		fmt.Fprintln(p, "\n# What ran for a renewal, and where that is set up; reload = [\"….service\"] or run = [[…]] in an output does that:")
	}
	for _, h := range p.tree.Hooks {
		text := h.describe()
		if len(h.Units) > 0 {
			text += "  -> reload = " + quoteList(h.Units)
		}
		if h.notes != "" {
			text += "  (" + h.notes + ")"
		}
		if !h.Whole {
			text += "  (left out)"
		}
		fmt.Fprintf(p, "#   %s\n", text)
	}
}

// group is certificates whose files go the same way.
type group struct {
	match  []string // as in an output
	units  []string
	copies []Copy // of the only certificate
}

// groups are the outputs that do what the client did: certificates with the same reloads together, those of which copies
// were made alone.
func (p *page) groups() (list []group) {
	all := 0
	for _, c := range p.tree.Certificates {
		g := group{match: []string{c.Name}}
		for _, h := range p.tree.Hooks {
			if len(h.For) > 0 && !slices.Contains(h.For, c.was) {
				continue
			}
			for _, unit := range h.Units {
				if !slices.Contains(g.units, unit) {
					g.units = append(g.units, unit)
				}
			}
		}
		for _, copied := range p.tree.Copies {
			if copied.For == c.was {
				g.copies = append(g.copies, copied)
			}
		}
		if len(g.units)+len(g.copies) == 0 {
			continue
		}
		all++
		i := slices.IndexFunc(list, func(o group) bool { return len(o.copies)+len(g.copies) == 0 && slices.Equal(o.units, g.units) })
		if i >= 0 {
			list[i].match = append(list[i].match, c.Name)
		} else {
			list = append(list, g)
		}
	}
	if len(list) == 1 && all == len(p.tree.Certificates) && len(list[0].copies) == 0 {
		list[0].match = []string{"*"}
	}
	return list
}

// copies writes the files that the client wrote for a service: by a command of the output, or as what a person has to see to.
func (p *page) copies(g group, dir string) {
	if len(g.copies) == 0 {
		return
	}
	files := []string{"cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"}
	var commands []string
	for _, c := range g.copies {
		if slices.Contains(files, c.What) {
			from := strings.ReplaceAll(dir, "{name}", g.match[0]) + "/" + c.What
			commands = append(commands, "#  "+quoteList([]string{"/usr/bin/install", "-m", map[bool]string{true: "0600", false: "0644"}[c.What == "privkey.pem"], from, c.Path})+",\n")
		}
	}
	fmt.Fprintln(p, "# Copies that services read, and that nobody renews any more; better let the services read the files in dir:")
	for _, c := range g.copies {
		fmt.Fprintf(p, "#   %s at %s\n", c.What, oneLine(c.Path))
	}
	if len(commands) > 0 {
		fmt.Fprintf(p, "#run    = [\n%s#]\n", strings.Join(commands, ""))
	}
}

// quoteList writes a list of texts as TOML does.
func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, text := range list {
		quoted[i] = quote(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// key is a name as it stands in the header of a table.
func key(name string) string {
	if strings.Contains(name, ".") {
		return quote(name)
	}
	return name
}

// quote writes a text as TOML does. The strings of JSON are some of those of TOML.
func quote(text string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(strings.ReplaceAll(text, "\x7f", "")) != nil {
		return `""` // can't be: a string is always JSON
	}
	return strings.TrimSuffix(b.String(), "\n")
}
