package hostile

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Mode is one way not to play fair.
type Mode struct {
	act func(x *Exchange) // what it leaves alone goes through as it is
}

// on acts on requests of one kind; see [testbed.Kind].
func on(kind string, act func(x *Exchange)) Mode {
	return Mode{func(x *Exchange) {
		if x.Kind == kind {
			act(x)
		}
	}}
}

// onOrder acts on every reply that shows an order.
func onOrder(act func(x *Exchange)) Mode {
	return Mode{func(x *Exchange) {
		if x.Kind == "newOrder" || x.Kind == "order" || x.Kind == "finalize" {
			act(x)
		}
	}}
}

// made acts on what the CA makes, and leaves its refusals alone.
func made(mode Mode) Mode {
	return Mode{func(x *Exchange) {
		if x.Pass().Code < http.StatusMultipleChoices {
			mode.act(x)
		}
	}}
}

// edit changes the replies to requests of one kind.
func edit(kind string, change func(x *Exchange, object map[string]any)) Mode {
	return on(kind, func(x *Exchange) { x.Edit(func(object map[string]any) { change(x, object) }) })
}

// editOrder changes every reply that shows an order.
func editOrder(change func(x *Exchange, order map[string]any)) Mode {
	return onOrder(func(x *Exchange) { x.Edit(func(order map[string]any) { change(x, order) }) })
}

// forge sends another certificate than Pebble's.
func forge(make func(x *Exchange, csr *x509.CertificateRequest) string) Mode {
	return on("certificate", func(x *Exchange) {
		if csr := x.CSR(); csr != nil {
			x.Answer(http.StatusOK, pemChain, make(x, csr))
		}
	})
}

// leaf sends a certificate with a chain that belongs to it.
func leaf(change func(leaf *x509.Certificate)) Mode {
	return forge(func(x *Exchange, csr *x509.CertificateRequest) string {
		f := x.CA.forger
		return pemOf(f.leaf(csr, change), f.issuer)
	})
}

const (
	pemChain = "application/pem-certificate-chain"
	problem  = "application/problem+json"
	bank     = "bank.example.test" // a name that nobody ordered here

	// nasty is a text that does something to terminals and logs.
	nasty = "bad\x1b]0;title\x07\x1b[2J\nlevel=ERROR msg=\"forged line\"\r\u202egnp.exe"
)

func challenges(authorization map[string]any) []map[string]any {
	var list []map[string]any
	all, _ := authorization["challenges"].([]any)
	for _, c := range all {
		if c, ok := c.(map[string]any); ok && c["type"] == "dns-01" {
			list = append(list, c)
		}
	}
	return list
}

// modes holds the modes by their names, besides the odd ones. Words before the first hyphen say what it is about.
func modes() map[string]Mode {
	all := map[string]Mode{}
	for _, group := range []map[string]Mode{authorizationModes(), urlModes(), endlessModes(), certificateModes(), textModes(), fieldModes(), orderModes(), stateModes()} {
		for name, mode := range group {
			all[name] = mode
		}
	}
	return all
}

// authorizationModes want something published that nobody ordered.
func authorizationModes() map[string]Mode {
	return map[string]Mode{
		"authz-name": edit("authorization", func(_ *Exchange, a map[string]any) {
			a["identifier"] = map[string]any{"type": "dns", "value": bank}
		}),
		"authz-parent": edit("authorization", func(_ *Exchange, a map[string]any) {
			a["identifier"] = map[string]any{"type": "dns", "value": "example.test"}
		}),
		"authz-type": edit("authorization", func(_ *Exchange, a map[string]any) {
			a["identifier"].(map[string]any)["type"] = "ip"
		}),
		"authz-wildcard": edit("authorization", func(_ *Exchange, a map[string]any) { a["wildcard"] = true }),
		"authz-value": edit("authorization", func(_ *Exchange, a map[string]any) {
			for _, c := range challenges(a) {
				c["keyAuthorization"] = "chosen.by-the-CA"
			}
		}),
		"authz-token": edit("authorization", func(_ *Exchange, a map[string]any) {
			for _, c := range challenges(a) {
				c["token"] = "not base64url.\x1b[2J"
			}
		}),
		"authz-token-long": edit("authorization", func(_ *Exchange, a map[string]any) {
			for _, c := range challenges(a) {
				c["token"] = strings.Repeat("A", 100_000)
			}
		}),
		"authz-twice": editOrder(func(_ *Exchange, order map[string]any) {
			list, _ := order["authorizations"].([]any)
			order["authorizations"] = slices.Concat(list, list)
		}),
		"authz-many": editOrder(func(_ *Exchange, order map[string]any) {
			if list, _ := order["authorizations"].([]any); len(list) > 0 {
				order["authorizations"] = slices.Repeat(list, 1000)
			}
		}),
	}
}

// urlModes lead elsewhere.
func urlModes() map[string]Mode {
	elsewhere := func(field, kind string, url func(s *Stranger) string) Mode {
		return Mode{func(x *Exchange) {
			if x.Kind == kind {
				x.Edit(func(object map[string]any) {
					switch field {
					case "authorizations":
						object[field] = []string{url(x.CA.Stranger) + "/authz"}
					case "challenges":
						for _, c := range challenges(object) {
							c["url"] = url(x.CA.Stranger) + "/chall"
						}
					default:
						object[field] = url(x.CA.Stranger) + "/" + field
					}
				})
			}
		}}
	}
	https := func(s *Stranger) string { return s.HTTPS }
	plain := func(s *Stranger) string { return s.HTTP }
	redirect := func(kind string) Mode {
		return on(kind, func(x *Exchange) {
			x.Answer(http.StatusTemporaryRedirect, "text/plain", "")
			x.Header("Location", x.CA.Stranger.HTTPS+"/"+kind)
		})
	}
	return map[string]Mode{
		"url-authz":          elsewhere("authorizations", "newOrder", https),
		"url-authz-plain":    elsewhere("authorizations", "newOrder", plain),
		"url-finalize":       elsewhere("finalize", "newOrder", https),
		"url-challenge":      elsewhere("challenges", "authorization", https),
		"url-certificate":    {func(x *Exchange) { elsewhere("certificate", x.Kind, https).act(x) }},
		"redirect-directory": redirect("directory"),
		"url-directory":      edit("directory", func(x *Exchange, dir map[string]any) { dir["newOrder"] = x.CA.Stranger.HTTPS + "/new-order" }),
		"url-renewal":        edit("directory", func(x *Exchange, dir map[string]any) { dir["renewalInfo"] = x.CA.Stranger.HTTPS + "/ari" }),
		"redirect-neworder":  redirect("newOrder"),
		"redirect-challenge": redirect("challenge"),
		"redirect-finalize":  redirect("finalize"),
		"link-alternate-elsewhere": on("certificate", func(x *Exchange) {
			x.Pass().Header().Add("Link", fmt.Sprintf(`<%s/alternate>;rel="alternate"`, x.CA.Stranger.HTTPS))
		}),
		"link-up-elsewhere": on("certificate", func(x *Exchange) {
			x.Pass().Header().Add("Link", fmt.Sprintf(`<%s/up>;rel="up"`, x.CA.Stranger.HTTPS))
		}),
	}
}

// endlessModes want time and memory.
func endlessModes() map[string]Mode {
	return map[string]Mode{
		"silent":        {(*Exchange).Hang},
		"silent-order":  onOrder((*Exchange).Hang),
		"endless-order": on("newOrder", func(x *Exchange) { x.Endless("application/json", `{"status":"pending",`+strings.Repeat(" ", 1<<16)) }),
		"endless-authz": on("authorization", func(x *Exchange) { x.Endless("application/json", strings.Repeat("[", 1<<16)) }),
		"endless-chain": on("certificate", func(x *Exchange) { x.Endless(pemChain, strings.Repeat("A", 1<<16)) }),
		"endless-error": on("newOrder", func(x *Exchange) {
			x.Pass()
			x.w.WriteHeader(http.StatusInternalServerError)
			x.Endless("text/html", strings.Repeat("<p>", 1<<14))
		}),
		"endless-nonce": {func(x *Exchange) { x.Header("Replay-Nonce", strings.Repeat("A", 100_000)) }},
		"link-up": on("certificate", func(x *Exchange) {
			x.Pass().Header().Add("Link", fmt.Sprintf(`<https://%s%s>;rel="up"`, x.Request.Host, x.Request.URL.Path))
		}),
		"link-alternate": on("certificate", func(x *Exchange) { alternates(x, 1000) }),
		"chain-long": forge(func(x *Exchange, csr *x509.CertificateRequest) string {
			f := x.CA.forger
			return pemOf(f.leaf(csr, nil)) + strings.Repeat(pemOf(f.issuer), 5000)
		}),
		"polls": edit("authorization", func(_ *Exchange, a map[string]any) { a["status"] = "pending" }),
	}
}

func alternates(x *Exchange, n int) {
	for i := range n {
		x.Pass().Header().Add("Link", fmt.Sprintf(`<https://%s%s?%d>;rel="alternate"`, x.Request.Host, x.Request.URL.Path, i))
	}
}

// certificateModes send certificates that no client would take, and some that are odd and fine.
func certificateModes() map[string]Mode {
	return map[string]Mode{
		"cert-notyet": leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().AddDate(0, 1, 0) }),
		"cert-soon":   leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
		"cert-expired": leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(0, -3, 0), time.Now().Add(-time.Minute)
		}),
		"cert-ending": leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(0, -3, 0), time.Now().AddDate(0, 0, 1)
		}),
		"cert-brief": leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Minute) }),
		"cert-extraname": leaf(func(c *x509.Certificate) {
			c.DNSNames = append(slices.Clone(c.DNSNames), "www."+c.DNSNames[0])
		}),
		"cert-othername": leaf(func(c *x509.Certificate) { c.DNSNames = []string{bank} }),
		"cert-otherkey": leaf(func(c *x509.Certificate) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				panic(err) // the system has no randomness
			}
			c.PublicKey = key.Public()
		}),
		"cert-nochain": forge(func(x *Exchange, csr *x509.CertificateRequest) string { return pemOf(x.CA.forger.leaf(csr, nil)) }),
		"cert-foreignchain": forge(func(x *Exchange, csr *x509.CertificateRequest) string {
			return pemOf(x.CA.forger.leaf(csr, nil), x.CA.forger.impostor)
		}),
		"cert-selfissued": leaf(func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "hostile issuer"} }),
		"cert-cafirst": forge(func(x *Exchange, csr *x509.CertificateRequest) string {
			return pemOf(x.CA.forger.issuer, x.CA.forger.leaf(csr, nil))
		}),
		"cert-404": on("certificate", func(x *Exchange) { x.Problem(http.StatusNotFound, "malformed", "no such certificate") }),
		"cert-503": on("certificate", func(x *Exchange) {
			x.Problem(http.StatusServiceUnavailable, "serverInternal", "not now")
			x.Header("Retry-After", "60")
		}),
		"cert-lost": made(on("certificate", (*Exchange).Lose)),
		"cert-html": on("certificate", func(x *Exchange) { x.Answer(http.StatusOK, "text/html", "<h1>It works!</h1>") }),
		"cert-garbage": on("certificate", func(x *Exchange) {
			x.Answer(http.StatusOK, pemChain, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		}),
	}
}

// textModes send texts that do something to those who show them, or are very long.
func textModes() map[string]Mode {
	return map[string]Mode{
		"text-problem": on("newOrder", func(x *Exchange) { x.Problem(http.StatusForbidden, "rejectedIdentifier", nasty) }),
		"text-long": on("newOrder", func(x *Exchange) {
			x.Problem(http.StatusForbidden, "rejectedIdentifier", strings.Repeat("\U0001f512 ", 1<<20))
		}),
		"text-html": on("newOrder", func(x *Exchange) {
			x.Answer(http.StatusInternalServerError, "text/html", strings.Repeat("<td>\"</td>\n", 400_000))
		}),
		"text-status":   editOrder(func(_ *Exchange, order map[string]any) { order["status"] = nasty + strings.Repeat("x", 100_000) }),
		"text-subjects": on("newOrder", func(x *Exchange) { x.Answer(http.StatusForbidden, problem, subproblems(2000)) }),
		"text-directory": edit("directory", func(_ *Exchange, dir map[string]any) {
			dir["meta"] = map[string]any{"termsOfService": "https://ca.test/" + nasty, "caaIdentities": []string{nasty}, "profiles": map[string]string{"default": nasty}}
		}),
		"text-issuer": forge(func(x *Exchange, csr *x509.CertificateRequest) string {
			f := x.CA.forger
			issuer, err := sign(&x509.Certificate{Subject: pkix.Name{CommonName: "evil \x1b[31mCA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
				NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0)}, f.root, f.issuerKey.Public(), f.rootKey)
			if err != nil {
				panic(err) // of a template that can't be signed
			}
			named := &forger{root: f.root, rootKey: f.rootKey, issuer: issuer, issuerKey: f.issuerKey}
			return pemOf(named.leaf(csr, nil), issuer)
		}),
	}
}

func subproblems(n int) string {
	one := `{"type":"urn:ietf:params:acme:error:caa","detail":"` + strings.Repeat("no ", 100) + `","identifier":{"type":"dns","value":"x"}}`
	return `{"type":"urn:ietf:params:acme:error:compound","detail":"many","status":403,"subproblems":[` + one + strings.Repeat(","+one, n) + `]}`
}

// fieldModes are clumsy rather than hostile: fields that nobody uses have odd values.
func fieldModes() map[string]Mode {
	return map[string]Mode{
		"field-problem": on("newOrder", func(x *Exchange) {
			x.Answer(http.StatusBadRequest, problem, `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"Domain is not approved","status":"400"}`)
		}),
		"field-orders":    edit("newAccount", func(_ *Exchange, a map[string]any) { a["orders"] = []string{"https://ca/x"} }),
		"field-notbefore": editOrder(func(_ *Exchange, order map[string]any) { order["notBefore"], order["notAfter"] = "", "" }),
		"field-expires":   editOrder(func(_ *Exchange, order map[string]any) { order["expires"] = "2036-12-05T00:00:00+0000" }),
		"field-never":     editOrder(func(_ *Exchange, order map[string]any) { order["expires"] = "never" }),
		"field-wildcard":  edit("authorization", func(_ *Exchange, a map[string]any) { a["wildcard"], a["expires"] = "false", 7 }),
		"field-validated": edit("authorization", func(_ *Exchange, a map[string]any) {
			for _, c := range challenges(a) {
				c["validated"], c["error"], c["status"] = 7, "", "pending"
			}
		}),
		"field-account": made(on("newAccount", func(x *Exchange) { x.Body("") })),
		"field-type":    on("certificate", func(x *Exchange) { x.Header("Content-Type", "text/plain") }),
		"field-json":    onOrder(func(x *Exchange) { x.Header("Content-Type", "text/json") }),
		"field-relative": made(on("newOrder", func(x *Exchange) {
			_, path, _ := strings.Cut(strings.TrimPrefix(x.reply.Header().Get("Location"), "https://"), "/")
			x.Header("Location", "/"+path)
		})),
		"field-relative-account": made(on("newAccount", func(x *Exchange) {
			_, path, _ := strings.Cut(strings.TrimPrefix(x.reply.Header().Get("Location"), "https://"), "/")
			x.Header("Location", "/"+path)
		})),
		"field-meta": edit("directory", func(_ *Exchange, dir map[string]any) {
			dir["meta"] = map[string]any{"caaIdentities": "ca.test", "externalAccountRequired": "no", "profiles": []string{"default"}, "website": 1}
		}),
	}
}

// orderModes are about what becomes of an order.
func orderModes() map[string]Mode {
	return map[string]Mode{
		"order-null":          made(onOrder(func(x *Exchange) { x.Body("null") })),
		"order-empty":         made(onOrder(func(x *Exchange) { x.Body("{}") })),
		"order-nolocation":    on("newOrder", func(x *Exchange) { x.Pass().Header().Del("Location") }),
		"order-nocertificate": editOrder(func(_ *Exchange, order map[string]any) { delete(order, "certificate") }),
		"order-lost":          made(on("newOrder", (*Exchange).Lose)),
		"retry-after": on("newOrder", func(x *Exchange) {
			x.Problem(http.StatusTooManyRequests, "rateLimited", "later")
			x.Header("Retry-After", "99999999999")
		}),
	}
}

// stateModes are what CAs do that mean no harm: they fail, they are slow, and they say so in ways of their own.
func stateModes() map[string]Mode {
	const finalize = "finalize"
	return map[string]Mode{
		// Boulder, when its certificate authority fails.
		"finalize-500": {func(x *Exchange) {
			switch {
			case x.Kind == finalize:
				x.Problem(http.StatusInternalServerError, "serverInternal", "Error finalizing order")
			case x.Kind == "order" && x.CA.Seen(finalize) > 0:
				x.Edit(func(order map[string]any) {
					order["status"] = "invalid"
					order["error"] = map[string]any{"type": "urn:ietf:params:acme:error:serverInternal", "detail": "Unable to retrieve SCTs", "status": 500}
				})
			}
		}},
		// A replica that is behind.
		"finalize-notready": on(finalize, func(x *Exchange) {
			if x.Nth <= 2 {
				x.Problem(http.StatusForbidden, "orderNotReady", "Order is not ready")
			}
		}),
		"finalize-badcsr": on(finalize, func(x *Exchange) { x.Problem(http.StatusBadRequest, "badCSR", "public key is forbidden") }),
		"finalize-processing": editOrder(func(x *Exchange, order map[string]any) {
			if x.CA.Seen(finalize) > 0 {
				order["status"] = "processing"
				delete(order, "certificate")
			}
		}),
		"challenge-conflict": made(on("challenge", func(x *Exchange) { x.Problem(http.StatusConflict, "conflict", "validation is in progress") })),
		"account-429": on("newAccount", func(x *Exchange) {
			x.Problem(http.StatusTooManyRequests, "rateLimited", "too many registrations")
			x.Header("Retry-After", "3600")
		}),
		"account-blocked": on("newOrder", func(x *Exchange) { x.Problem(http.StatusForbidden, "unauthorized", "Account blocked") }),
		// A cache of account keys.
		"account-malformed": on("newOrder", func(x *Exchange) {
			if x.Nth <= 2 {
				x.Problem(http.StatusBadRequest, "malformed", "JWS verification error")
			}
		}),
	}
}

// oddModes are what else a CA may answer with, at each step.
func oddModes() map[string]Mode {
	all := map[string]Mode{}
	for _, group := range []map[string]Mode{oddAuthorizations(), oddTokens(), oddURLs(), oddStatuses(), oddTransports(), oddProblems(), oddCertificates()} {
		maps.Copy(all, group)
	}
	return all
}

// gone answers that something isn't there, for ever.
func gone(kind string) Mode {
	return on(kind, func(x *Exchange) { x.Problem(http.StatusNotFound, "malformed", "no such "+kind) })
}

// html answers by a page for people.
func html(kind string) Mode {
	return on(kind, func(x *Exchange) {
		x.Pass()
		x.Answer(http.StatusOK, "text/html", "<h1>It works!</h1>")
	})
}

// limited answers by a limit.
func limited(kind string) Mode {
	return on(kind, func(x *Exchange) {
		x.Problem(http.StatusTooManyRequests, "rateLimited", "too many requests")
		x.Header("Retry-After", "3600")
	})
}

// changed changes authorizations: at once, or from when the CA has been told to look.
func changed(looked bool, change func(a map[string]any)) Mode {
	return edit("authorization", func(x *Exchange, a map[string]any) {
		if !looked || x.CA.Seen("challenge") > 0 {
			change(a)
		}
	})
}

func oddAuthorizations() map[string]Mode {
	named := func(change func(name string) string) Mode {
		return changed(false, func(a map[string]any) {
			id := a["identifier"].(map[string]any)
			id["value"] = change(id["value"].(string))
		})
	}
	status := func(looked bool, status string) Mode {
		return changed(looked, func(a map[string]any) { a["status"] = status })
	}
	listed := func(urls ...string) Mode {
		return editOrder(func(_ *Exchange, order map[string]any) { order["authorizations"] = urls })
	}
	return map[string]Mode{
		"authz-ip": changed(false, func(a map[string]any) {
			a["identifier"] = map[string]any{"type": "ip", "value": "127.0.0.1"}
		}),
		"authz-noid":        changed(false, func(a map[string]any) { delete(a, "identifier") }),
		"authz-case":        named(strings.ToUpper),
		"authz-dot":         named(func(name string) string { return name + "." }),
		"authz-dots":        named(func(name string) string { return name + ".." }),
		"authz-blank":       named(func(name string) string { return " " + name + "\n" }),
		"authz-star":        named(func(name string) string { return "*." + name }),
		"authz-homograph":   named(func(name string) string { return strings.ReplaceAll(name, "e", "\u0435") }),
		"authz-none":        listed([]string{}...),
		"authz-nourl":       listed(""),
		"authz-404":         gone("authorization"),
		"authz-html":        html("authorization"),
		"authz-429":         limited("authorization"),
		"authz-403":         on("authorization", func(x *Exchange) { x.Problem(http.StatusForbidden, "unauthorized", "not yours") }),
		"authz-nochallenge": changed(false, func(a map[string]any) { a["challenges"] = []any{} }),
		"authz-http": changed(false, func(a map[string]any) {
			a["challenges"] = []any{map[string]any{"type": "http-01", "url": "https://ca.test/y", "token": "AAAA", "status": "pending"}}
		}),
		"authz-deactivated": status(false, "deactivated"),
		"authz-lapses":      status(true, "expired"),
		"authz-revoked":     status(true, "revoked"),
		"authz-strange":     status(true, "maybe\x1b[2J"),
		"authz-processing": changed(false, func(a map[string]any) {
			if a["status"] == "pending" {
				a["status"] = "processing"
			}
		}),
		// It has looked, and forgets to say so of the authorization.
		"authz-forgotten": changed(true, func(a map[string]any) {
			a["status"] = "pending"
			for _, c := range challenges(a) {
				c["status"], c["error"] = "invalid", map[string]any{"type": "urn:ietf:params:acme:error:dns", "detail": "no TXT record"}
			}
		}),
		"authz-401": on("authorization", func(x *Exchange) {
			if x.CA.Seen("challenge") > 0 {
				x.Problem(http.StatusUnauthorized, "unauthorized", "who are you?")
			}
		}),
	}
}

func oddTokens() map[string]Mode {
	all := map[string]Mode{}
	for name, token := range map[string]any{"empty": "", "padded": "AAAAAAAAAAAAAAAAAAAAAA==", "unicode": "AAAA\u0410AAAAAAAAAAAAAAAAAA", "nul": "AAAA\x00AAAA",
		"quote": `AAAA" "AAAA`, "blank": " AAAA", "513": strings.Repeat("A", 513), "number": 7, "null": nil} {
		all["token-"+name] = changed(false, func(a map[string]any) {
			for _, c := range challenges(a) {
				c["token"] = token
			}
		})
	}
	return all
}

func oddURLs() map[string]Mode {
	challenge := func(url func(host string) any) Mode {
		return edit("authorization", func(x *Exchange, a map[string]any) {
			for _, c := range challenges(a) {
				c["url"] = url(x.Request.Host)
			}
		})
	}
	finalize := func(url func(host string) any) Mode {
		return editOrder(func(x *Exchange, order map[string]any) { order["finalize"] = url(x.Request.Host) })
	}
	located := func(kind, path string) Mode {
		return made(on(kind, func(x *Exchange) { x.Header("Location", x.CA.Stranger.HTTPS+path) }))
	}
	redirect := func(kind string, location func(x *Exchange) string) Mode {
		return on(kind, func(x *Exchange) {
			x.Answer(http.StatusFound, "text/plain", "")
			x.Header("Location", location(x))
		})
	}
	return map[string]Mode{
		"challenge-port":     challenge(func(string) any { return "https://127.0.0.1:1/chall" }),
		"challenge-user":     challenge(func(host string) any { return "https://admin:secret@" + host + "/chall" }),
		"challenge-file":     challenge(func(string) any { return "file:///etc/passwd" }),
		"challenge-nourl":    challenge(func(string) any { return nil }),
		"challenge-escape":   challenge(func(host string) any { return "https://" + host + "/\x1b[2J" }),
		"challenge-host":     challenge(func(host string) any { return "https://" + host + ".attacker.test/chall" }),
		"finalize-plain":     finalize(func(host string) any { return "http://" + host + "/finalize" }),
		"finalize-nourl":     finalize(func(string) any { return nil }),
		"finalize-relative":  finalize(func(string) any { return "/finalize-order/1" }),
		"finalize-long":      finalize(func(host string) any { return "https://" + host + "/" + strings.Repeat("a", 50_000) }),
		"location-account":   located("newAccount", "/account"),
		"location-order":     located("newOrder", "/order"),
		"location-noaccount": made(on("newAccount", func(x *Exchange) { x.Pass().Header().Del("Location") })),
		"redirect-chain":     redirect("directory", func(x *Exchange) string { return fmt.Sprint(x.Request.URL.Path, "?", x.Nth) }),
		"redirect-nonce":     redirect("newNonce", func(x *Exchange) string { return x.CA.Stranger.HTTPS + "/nonce" }),
		"redirect-nowhere":   on("newOrder", func(x *Exchange) { x.Answer(http.StatusFound, "text/plain", "") }),
		"directory-relative": edit("directory", func(_ *Exchange, dir map[string]any) { dir["newOrder"] = "/order-plz" }),
		"directory-html":     html("directory"),
		"directory-empty":    on("directory", func(x *Exchange) { x.Answer(http.StatusOK, "application/json", "") }),
		"directory-other":    on("directory", func(x *Exchange) { x.Answer(http.StatusOK, "application/json", `{"hello": "world"}`) }),
		"directory-401":      on("directory", func(x *Exchange) { x.Answer(http.StatusUnauthorized, "text/html", "log in") }),
		"directory-429":      limited("directory"),
	}
}

func oddStatuses() map[string]Mode {
	caa := map[string]any{"type": "urn:ietf:params:acme:error:caa", "detail": "CAA says no",
		"subproblems": []any{map[string]any{"detail": "CAA says no", "identifier": map[string]any{"type": "dns", "value": "a\x1b[2J.test"}, "subproblems": []any{map[string]any{"detail": "deeper"}}}}}
	invalid := func(_ *Exchange, order map[string]any) {
		delete(order, "certificate")
		order["status"], order["error"] = "invalid", caa
	}
	noContent := func(kind string) Mode {
		return on(kind, func(x *Exchange) {
			x.Body("")
			x.reply.Code = http.StatusNoContent
		})
	}
	return map[string]Mode{
		"challenge-404": gone("challenge"),
		"challenge-429": limited("challenge"),
		"finalize-429":  limited("finalize"),
		"finalize-404":  gone("finalize"),
		"finalize-401":  on("finalize", func(x *Exchange) { x.Problem(http.StatusUnauthorized, "unauthorized", "account is deactivated") }),
		"finalize-html": html("finalize"),
		"finalize-204":  noContent("finalize"),
		"cert-429":      limited("certificate"),
		// The account goes while an order is open.
		"finalize-noaccount": on("finalize", func(x *Exchange) { x.Problem(http.StatusBadRequest, "accountDoesNotExist", "no such account") }),
		"finalize-invalid":   edit("finalize", invalid),
		"order-invalid":      edit("newOrder", invalid),
		"order-204":          noContent("newOrder"),
		"order-202":          made(onOrder(func(x *Exchange) { x.reply.Code = http.StatusAccepted })),
		"order-identifiers": editOrder(func(_ *Exchange, order map[string]any) {
			order["identifiers"] = []any{map[string]any{"type": "dns", "value": bank}}
		}),
		"order-past": editOrder(func(_ *Exchange, order map[string]any) { order["expires"] = "2001-01-01T00:00:00Z" }),
		"order-regress": editOrder(func(x *Exchange, order map[string]any) {
			if n := x.CA.Seen("order"); x.CA.Seen("finalize") == 1 && n < 4 {
				order["status"] = []string{"processing", "ready", "processing", "pending"}[n]
			}
		}),
		"order-valid":     editOrder(func(_ *Exchange, order map[string]any) { order["status"] = "valid" }),
		"order-noaccount": on("newOrder", func(x *Exchange) { x.Problem(http.StatusBadRequest, "accountDoesNotExist", "no such account") }),
	}
}

func oddTransports() map[string]Mode {
	body := func(text string) Mode { return on("newOrder", func(x *Exchange) { x.Body(text) }) }
	packed := func(body func(x *Exchange) string) Mode {
		return on("newOrder", func(x *Exchange) {
			x.Body(body(x))
			x.Header("Content-Encoding", "gzip")
		})
	}
	later := func(when string) Mode {
		return on("newOrder", func(x *Exchange) {
			x.Problem(http.StatusServiceUnavailable, "serverInternal", "later")
			x.Header("Retry-After", when)
		})
	}
	return map[string]Mode{
		"order-packed":  packed(func(x *Exchange) string { return pack(x.Pass().Body.Bytes()) }),
		"order-bomb":    packed(func(*Exchange) string { return pack(bytes.Repeat([]byte(" "), 16<<20)) }),
		"order-notgzip": packed(func(x *Exchange) string { return x.Pass().Body.String() }),
		"order-deep":    body(strings.Repeat("[", 100_000)),
		"order-cut":     body(`{"status": "pend`),
		"order-headers": on("newOrder", func(x *Exchange) {
			for i := range 1000 {
				x.Header(fmt.Sprint("X-", i), strings.Repeat("a", 1000))
			}
		}),
		"nonce-429":      limited("newNonce"),
		"nonce-503":      on("newNonce", func(x *Exchange) { x.Problem(http.StatusServiceUnavailable, "serverInternal", "not now") }),
		"nonce-none":     {func(x *Exchange) { x.Pass().Header().Del("Replay-Nonce") }},
		"nonce-bad":      on("newOrder", func(x *Exchange) { x.Problem(http.StatusBadRequest, "badNonce", "try again") }),
		"retry-past":     later("Fri, 31 Dec 1999 23:59:59 GMT"),
		"retry-far":      later("Fri, 31 Dec 9999 23:59:59 GMT"),
		"retry-negative": later("-5"),
		"retry-overflow": later("99999999999999999999"),
		"retry-garbage":  later("soon"),
	}
}

// pack compresses a text.
func pack(text []byte) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(text) // a buffer takes everything
	_ = z.Close()
	return out.String()
}

func oddProblems() map[string]Mode {
	all := map[string]Mode{}
	for name, text := range map[string]string{
		"title":    `{"type":"about:blank","title":"Forbidden by policy"}`,
		"notype":   `{"detail":"Not for you"}`,
		"empty":    "",
		"list":     `[{"detail":"x"}]`,
		"typeonly": `{"type":"urn:ietf:params:acme:error:caa"}`,
		"own":      `{"type":"https://ca.test/errors/7","detail":"No."}`,
		"same": `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"Error creating new order :: Cannot issue for \"h.example.test\": forbidden",
			"subproblems":[{"detail":"Cannot issue for \"h.example.test\": forbidden","identifier":{"type":"dns","value":"h.example.test"}}]}`,
	} {
		all["problem-"+name] = on("newOrder", func(x *Exchange) { x.Answer(http.StatusForbidden, problem, text) })
	}
	all["problem-200"] = on("newOrder", func(x *Exchange) {
		x.Answer(http.StatusOK, problem, `{"type":"urn:ietf:params:acme:error:caa","detail":"CAA says no"}`)
	})
	return all
}

func oddCertificates() map[string]Mode {
	// chain sends a certificate and what follows it.
	chain := func(follow func(f *forger, leaf *x509.Certificate) []*x509.Certificate) Mode {
		return forge(func(x *Exchange, csr *x509.CertificateRequest) string {
			f := x.CA.forger
			leaf := f.leaf(csr, nil)
			return pemOf(append([]*x509.Certificate{leaf}, follow(f, leaf)...)...)
		})
	}
	ca := func(name pkix.Name, from, to time.Time) *x509.Certificate {
		return &x509.Certificate{Subject: name, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: from, NotAfter: to}
	}
	year := func(n int) time.Time { return time.Now().AddDate(n, 0, -1) }
	must := func(c *x509.Certificate, err error) *x509.Certificate {
		if err != nil {
			panic(err) // of a template that can't be signed
		}
		return c
	}
	return map[string]Mode{
		"cert-twice": chain(func(f *forger, leaf *x509.Certificate) []*x509.Certificate {
			return []*x509.Certificate{leaf, f.issuer, f.issuer}
		}),
		"cert-root": chain(func(f *forger, _ *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{f.issuer, f.root} }),
		// The root, signed by another one.
		"cert-crossed": chain(func(f *forger, _ *x509.Certificate) []*x509.Certificate {
			other, err := newForger()
			if err != nil {
				panic(err) // the system has no randomness
			}
			return []*x509.Certificate{f.issuer, must(sign(ca(f.root.Subject, year(0), year(1)), other.root, f.rootKey.Public(), other.rootKey))}
		}),
		"cert-twoleaves": chain(func(f *forger, leaf *x509.Certificate) []*x509.Certificate {
			key := must(sign(&x509.Certificate{DNSNames: leaf.DNSNames, NotBefore: year(0), NotAfter: year(1)}, f.issuer, f.rootKey.Public(), f.issuerKey))
			return []*x509.Certificate{key, f.issuer}
		}),
		"cert-oldissuer": chain(func(f *forger, _ *x509.Certificate) []*x509.Certificate {
			return []*x509.Certificate{must(sign(ca(f.issuer.Subject, year(-2), year(-1)), f.root, f.issuerKey.Public(), f.rootKey))}
		}),
		"cert-backwards": leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(40*time.Minute), time.Now().Add(20*time.Minute)
		}),
		"cert-wildcard": leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.example.test"} }),
		"cert-sancase":  leaf(func(c *x509.Certificate) { c.DNSNames = []string{strings.ToUpper(c.DNSNames[0])} }),
		"cert-ip":       leaf(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }),
		"cert-cnonly":   leaf(func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = c.DNSNames[0], nil }),
		"cert-client":   leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		// A precertificate (RFC 6962 section 3.1).
		"cert-poison": leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}, Critical: true, Value: []byte{5, 0}}}
		}),
		"cert-withkey": forge(func(x *Exchange, csr *x509.CertificateRequest) string {
			f := x.CA.forger
			return "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + pemOf(f.leaf(csr, nil), f.issuer)
		}),
		"cert-pkcs7": on("certificate", func(x *Exchange) {
			x.Answer(http.StatusOK, "application/pkcs7-mime", "-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n")
		}),
		"cert-empty": on("certificate", func(x *Exchange) { x.Answer(http.StatusOK, pemChain, "") }),
	}
}
