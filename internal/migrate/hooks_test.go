package migrate

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"autocertd/internal/config"
	"autocertd/internal/knownca"
	"autocertd/internal/lifecycle"
)

func TestReloads(t *testing.T) {
	const nginx, dovecot, postfix = "nginx.service", "dovecot.service", "postfix.service"
	tests := []struct {
		command string
		units   []string
		whole   bool
	}{
		{"systemctl reload nginx", []string{nginx}, true},
		{"/usr/bin/systemctl --quiet reload nginx.service", []string{nginx}, true},
		{"sudo -n /bin/systemctl try-reload-or-restart nginx", []string{nginx}, true},
		{"systemctl restart postfix dovecot", []string{postfix, dovecot}, true},
		{"systemctl reload postfix@-.service", []string{"postfix@-.service"}, true},
		{"true && systemctl reload nginx", []string{nginx}, true},
		{"systemctl reload nginx || true", []string{nginx}, true},
		{"systemctl reload nginx >/dev/null 2>&1", []string{nginx}, true},
		{"systemctl reload nginx &> /dev/null", []string{nginx}, true},
		{"service nginx reload", []string{nginx}, true},
		{"/usr/sbin/service nginx force-reload; service postfix restart", []string{nginx, postfix}, true},
		{"/etc/init.d/nginx reload", []string{nginx}, true},
		{"invoke-rc.d dovecot restart", []string{dovecot}, true},
		{"nginx -s reload", []string{nginx}, true},
		{"apachectl graceful", []string{"apache2.service"}, true},
		{"\nset -e\n# the web\nsystemctl reload \\\n  nginx # now\nexit 0\n", []string{nginx}, true},
		{"systemctl reload 'nginx'", []string{nginx}, true},
		{"systemctl --no-block reload nginx", []string{nginx}, true},
		{"systemctl reload nginx || systemctl restart nginx", []string{nginx}, true},
		{"sh -c 'systemctl reload nginx'", []string{nginx}, true},
		{"/bin/bash -e -c \"systemctl reload nginx && service postfix reload\"", []string{nginx, postfix}, true},
		{"LANG=C sudo -n -u root systemctl reload nginx", []string{nginx}, true},
		{"/usr/bin/env LANG=C systemctl reload nginx", []string{nginx}, true},
		{"timeout -k 5 30 nice -n 5 systemctl reload nginx", []string{nginx}, true},
		{"exec systemctl reload nginx", []string{nginx}, true},
		{"(systemctl reload nginx)", []string{nginx}, true},
		{"httpd -k graceful", []string{"httpd.service"}, true},

		{"nginx -t && systemctl reload nginx", []string{nginx}, false},
		{"cat a b > /etc/haproxy/c.pem && systemctl reload haproxy", []string{"haproxy.service"}, false},
		{"if true; then systemctl reload nginx; fi", []string{nginx}, false},
		{"for i in 1 2; do systemctl reload nginx; done", []string{nginx}, false},
		{"case $1 in deploy_cert) systemctl reload nginx;; esac", []string{nginx}, false},
		{"deploy_cert() { systemctl reload nginx; }", []string{nginx}, false},
		{"units=(systemctl reload nginx)", nil, false},
		{"systemctl try-restart srv-www.mount", nil, false},
		{"sh -c 'systemctl reload nginx; /usr/local/bin/push'", []string{nginx}, false},
		{"sh /usr/local/bin/push", nil, false},
		{"systemctl reload nginx || systemctl restart postfix", []string{nginx}, false},
		{"ssh root@web1 systemctl reload nginx", nil, false},
		{"systemctl reload nginx || /usr/local/bin/alarm", []string{nginx}, false},
		{"systemctl reload $SERVICE", nil, false},
		{"systemctl reload nginx*", nil, false},
		{"systemctl reload $(cat services)", nil, false},
		{"systemctl reload `cat services`", nil, false},
		{"systemctl reload nginx > /etc/log", nil, false},
		{"systemctl reload nginx | tee log", nil, false},
		{"systemctl stop nginx", nil, false},
		{"systemctl reload", nil, false},
		{"systemctl -H host reload nginx", nil, false},
		{"docker exec web nginx -s reload", nil, false},
		{"echo systemctl reload nginx", nil, false},
		{"echo 'a; systemctl reload nginx'", nil, false},
		{"/usr/local/bin/push", nil, false},
		{"true", nil, false},
		{"", nil, false},
		{"'", nil, false},
	}
	for _, tt := range tests {
		if units, whole, _ := reloads(tt.command); !slices.Equal(units, tt.units) || whole != tt.whole {
			t.Errorf("%q: %q, whole %t; want %q, %t", tt.command, units, whole, tt.units, tt.whole)
		}
	}
}

func TestWithoutSecrets(t *testing.T) {
	tests := []struct{ command, want string }{
		{"systemctl restart postfix dovecot", ""},
		{"apache2ctl restart; update2ca", ""},
		{"sh -c 'systemctl reload nginx; push --token=x1'", "sh -c 'systemctl reload nginx; push --token=…'"},
		{"ssh root@web2 'systemctl reload nginx'", ""},
		{"# the web\ncp /etc/a.pem /srv/ # both\n\n\tsystemctl reload nginx\n", "cp /etc/a.pem /srv/; systemctl reload nginx"},
		{"echo 'a\nb " + secretText + "'\nservice apache2 reload", "echo …; service apache2 reload"},
		{"systemctl reload nginx \\\n  postfix # the web", "systemctl reload nginx postfix"},
		{"cat $RENEWED_LINEAGE/fullchain.pem ${RENEWED_LINEAGE}/privkey.pem > /etc/haproxy/www.pem", ""},
		{`/usr/local/bin/push "$RENEWED_DOMAINS" --host=web1.corp.example -v`, ""},
		{"scp /etc/ssl/a.pem root@web1.corp.example:/etc/ssl/", ""},
		{"docker restart web1 && service apache2 reload", ""},
		{"push --token=" + secretText, "push --token=…"},
		{"push --api-key " + secretText + " now", "push --api-key … now"},
		{"TOKEN=" + secretText + " push", "TOKEN=… push"},
		{"curl -u admin:" + secretText + " https://host.example/reload", "curl -u … https://host.example/reload"},
		{"curl https://admin:" + secretText + "@host.example/", "curl …"},
		{"curl 'https://host.example/hook?key=" + secretText + "'", "curl https://host.example/hook?key=…"},
		{`curl -H "Authorization: Bearer ` + secretText + `" https://host.example`, "curl -H … https://host.example"},
		{"curl https://hooks.example/services/T00000000/B00000000/aB3dE5fG7hI9jK1lM3nO5pQ7", "curl …"},
		{"push 123e4567-e89b-42d3-a456-426614174000", "push …"},
		{"push correcthorsebattery5taple", "push …"},
		{"curl https://host.example/?a&deadbeef0123456789", "curl https://host.example/?a&…"},
		{"push '" + secretText + " {}'", "push …"},
		{"mail -s done\x1b[2J\u202e root", "mail -s done[2J root"},
	}
	for _, tt := range tests {
		got := withoutSecrets(tt.command)
		if tt.want == "" {
			tt.want = tt.command
		}
		if got != tt.want {
			t.Errorf("%q is shown as %q, want %q", tt.command, got, tt.want)
		}
	}
}

func TestSettings(t *testing.T) {
	shell := func(text string) map[string]string {
		set := map[string]string{"BASEDIR": "/base"}
		parseShell(text, set)
		delete(set, "BASEDIR")
		return set
	}
	tests := []struct {
		name  string
		parse func(string) map[string]string
		text  string
		want  map[string]string
	}{
		{"ConfigObj: a comment", parseConfigObj, "a = 192.0.2.1   # ns1\n# b = c\nd=e#f\n", map[string]string{"a": "192.0.2.1", "d": "e"}},
		{"ConfigObj: quotes", parseConfigObj, "a = \"x # y\" # z\nb = 'it, \"s\"'\nc = \"open\n", map[string]string{"a": "x # y", "b": `it, "s"`, "c": `"open`}},
		{"ConfigObj: lists", parseConfigObj, "a = dns-01,\nb = x, \"y z\" # no\nc =\n", map[string]string{"a": "dns-01", "b": "x, y z", "c": ""}},
		{"ConfigObj: over lines", parseConfigObj, "a = '''x\ny = z''' # no\nb = \"\"\"w\"\"\"\n", map[string]string{"a": "x\ny = z", "b": "w"}},
		{"ConfigObj: sections", parseConfigObj, "a = 1\n[renewalparams]\nb = 2\n[[webroot_map]]\nb = 3\n", map[string]string{"a": "1", "b": "2"}},
		{"cli.ini", parseIni, "deploy-hook = systemctl reload apache2\npost_hook: echo a#b # c\n# x = y\nnginx\nserver \"https://a\" # b\n--domain = d\n[s]\n",
			map[string]string{"deploy-hook": "systemctl reload apache2", "post-hook": "echo a#b", "nginx": "true", "server": "https://a"}},
		{"shell: quotes and comments", shell, "CA=\"https://ca/dir\"  # our own\nA='it'\\''s # no' # c\nB=a\\ b#c #d\nC=\"a \\\"b\\\" \\n\"\n",
			map[string]string{"CA": "https://ca/dir", "A": "it's # no", "B": "a b#c", "C": `a "b" \n`}},
		{"shell: variables", shell, "H=\"${BASEDIR}/hook.sh\"\nI=$H.bak\nJ='$H'\nK=$UNKNOWN/x\nL=${M:-/def}\nN=$(cat x; y)\nO=`z`\n",
			map[string]string{"H": "/base/hook.sh", "I": "/base/hook.sh.bak", "J": "$H", "K": "$UNKNOWN/x", "L": "/def", "N": "$(cat x; y)", "O": "`z`"}},
		{"shell: where assignments are", shell, "export A=1 B=2; C=3\necho D=4\n[ x ] && E=5\nif x; then F=6; fi\nenv G=7 cmd\n",
			map[string]string{"A": "1", "B": "2", "C": "3", "E": "5", "F": "6"}},
		{"shell: over lines", shell, "A='x\ny'\nB=\"z\\\nw\"\n", map[string]string{"A": "x\ny", "B": "zw"}},
		{"shell: wrapped by acme.sh", shell, "A='" + wrapBegin + "c3lzdGVtY3RsIHJlbG9hZCBuZ2lueA==" + wrapEnd + "'\n", map[string]string{"A": "systemctl reload nginx"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.parse(tt.text); !maps.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	// Values that hold one another don't grow without end.
	set := map[string]string{}
	parseShell("A=xxxxxxxx\n"+strings.Repeat("A=$A$A\n", 100), set)
	if n := len(set["A"]); n > 2*maxExpanded {
		t.Errorf("%d bytes", n)
	}
}

// TestHooks has trees of which services were reloaded in every way: each is named, what is a plain reload is proposed, and
// what is left out is told.
func TestHooks(t *testing.T) {
	tests := []struct {
		name, client string
		files        map[string]string // beside the tree, or instead
		says         []string
		leftOut      []string // exactly
	}{
		{"certbot's folders of hooks", "certbot", map[string]string{
			"renewal-hooks/deploy/10-nginx.sh":  "#!/bin/sh\nsystemctl reload nginx\n",
			"renewal-hooks/deploy/20-push.py":   "#!/usr/bin/python3\nsystemctl = reload\n",
			"renewal-hooks/post/30-mail":        "#!/bin/bash -e\nsystemctl reload postfix dovecot\n/usr/bin/logger done\n",
			"renewal-hooks/deploy/10-nginx.sh~": "#!/bin/sh\nsystemctl reload old\n",
			"renewal-hooks/deploy/off.sh":       "#!/bin/sh\nsystemctl reload off\n",
			"renewal-hooks/deploy/old/1.sh":     "#!/bin/sh\nsystemctl reload old\n",
		}, []string{"#match  = [\"*\"]\n#dir    = \"DIR/live/{name}\"\n#reload = [\"nginx.service\", \"postfix.service\", \"dovecot.service\"]\n",
			"#   renewal-hooks/deploy in 10-nginx.sh  -> reload = [\"nginx.service\"]\n", "#   renewal-hooks/deploy in 20-push.py  (left out)\n",
			"#   renewal-hooks/deploy in off.sh  (it never ran, since it isn't executable)\n"},
			[]string{"renewal-hooks/deploy in 20-push.py", "renewal-hooks/post in 30-mail"}},
		{"certbot's cli.ini", "certbot", map[string]string{"cli.ini": "deploy-hook = systemctl reload apache2  # web\npost-hook = /usr/local/bin/after --token=" + secretText + "\n"},
			[]string{"#reload = [\"apache2.service\"]", "#   deploy-hook in cli.ini: systemctl reload apache2  -> reload", "#   post-hook in cli.ini: /usr/local/bin/after --token=…  (left out)\n"},
			[]string{"post-hook in cli.ini: /usr/local/bin/after --token=…"}},
		{"hooks of one of certbot's certificates", "certbot", map[string]string{"renewal/multi.conf": "[renewalparams]\naccount = 32e6cedbe40239cda81ff0837ac29009\n" +
			"server = https://ca.example.test/dir\nauthenticator = manual\ninstaller = nginx\npre_hook = /usr/local/bin/pre\npost_hook = systemctl restart postfix dovecot\n" +
			"renew_hook = cat $RENEWED_LINEAGE/fullchain.pem $RENEWED_LINEAGE/privkey.pem > /etc/haproxy/www.pem\n"},
			[]string{"#match  = [\"multi\"]\n#dir    = \"DIR/live/{name}\"\n#reload = [\"postfix.service\", \"dovecot.service\", \"nginx.service\"]\n",
				"#   post_hook in renewal/multi.conf: systemctl restart postfix dovecot  -> reload = [\"postfix.service\", \"dovecot.service\"]  (it was restarted",
				"#   installer in renewal/multi.conf: nginx  -> reload"},
			[]string{"pre_hook in renewal/multi.conf: /usr/local/bin/pre",
				"renew_hook in renewal/multi.conf: cat $RENEWED_LINEAGE/fullchain.pem $RENEWED_LINEAGE/privkey.pem > /etc/haproxy/www.pem"}},
		{"certbot's folders of hooks, switched off", "certbot", map[string]string{"cli.ini": "no-directory-hooks = true\n", "renewal-hooks/deploy/10-nginx.sh": "#!/bin/sh\nsystemctl reload nginx\n"},
			[]string{"#match  = [\"*\"]\n"}, nil},
		{"certbot asked by HTTP", "certbot", map[string]string{"renewal/multi.conf": "[renewalparams]\naccount = 32e6cedbe40239cda81ff0837ac29009\nserver = https://ca.example.test/dir\nauthenticator = webroot\n" +
			"renew_hook = \"sh -c 'systemctl reload nginx, postfix'\"\n"},
			[]string{"# No records were written so far: the CA asked by HTTP or TLS (webroot). Here it asks for TXT records.\n"}, []string{"renew_hook in renewal/multi.conf: sh -c …"}},
		{"acme.sh asked by HTTP", "acme.sh", map[string]string{"dehydrated.example.test_ecc/dehydrated.example.test.conf": "Le_Domain='dehydrated.example.test'\nLe_API='" + testDirectory + "'\nLe_Webroot='/var/www,dns_cf,no'\n" +
			"Le_PreHook='__ACME_BASE64__START_c3lzdGVt*'\n"},
			[]string{"the CA asked by HTTP or TLS (webroot). ", "the CA asked by HTTP or TLS (standalone). ", "# How records were written: dns_cf, set up in DIR/account.conf.\n"},
			[]string{"Le_PreHook in dehydrated.example.test_ecc/dehydrated.example.test.conf: …"}},
		{"dehydrated asked by HTTP", "dehydrated", map[string]string{"config": "HOOK=/usr/local/bin/hook\nCHALLENGETYPE=http-01\n"}, []string{"the CA asked by HTTP or TLS (http-01). "}, []string{"HOOK in config: /usr/local/bin/hook"}},
		{"dehydrated's settings of certificates in a folder of their own", "dehydrated", map[string]string{"config": "DOMAINS_D=$BASEDIR/d\n", "d/star": "CHALLENGETYPE=dns-01\nHOOK=\"$BASEDIR/star.sh\" # DNS\n",
			"star.sh": "#!/bin/sh\ncase $1 in\ndeploy_cert) systemctl reload haproxy ;;\nesac\n"},
			[]string{"its hook, by DIR/star.sh.\n", "#match  = [\"star\"]", "#   HOOK in DIR/d/star: DIR/star.sh  -> reload = [\"haproxy.service\"]  (see its deploy_cert)  (left out)\n"}, []string{"HOOK in DIR/d/star: DIR/star.sh"}},
		{"scripts of one's own, run by a shell with arguments", "certbot", map[string]string{"cli.ini": "deploy-hook = bash DIR/own.sh mail\n",
			"own.sh": "#!/bin/bash\nfor name in $RENEWED_DOMAINS; do\n  [ \"$name\" = \"$1\" ] && systemctl reload dovecot\ndone\n"},
			[]string{"#reload = [\"dovecot.service\"]", "#   deploy-hook in cli.ini: bash DIR/own.sh mail  -> reload = [\"dovecot.service\"]  (left out)\n"}, []string{"deploy-hook in cli.ini: bash DIR/own.sh mail"}},
		{"one hook of many certificates", "certbot", map[string]string{"renewal/gone.conf": "[renewalparams]\nrenew_hook = /bin/x\n", "renewal/gone2.conf": "[renewalparams]\nrenew_hook = /bin/x\n"},
			[]string{"#   renew_hook in renewal/gone.conf and 1 more: /bin/x  (left out)\n"}, []string{"renew_hook in renewal/gone.conf and 1 more: /bin/x"}},
		{"dehydrated's hooks", "dehydrated", map[string]string{"config": "CA=\"https://ca.example.test/dir\"  # our own\nHOOK=\"${BASEDIR}/hook.sh\"\nCURL_OPTS=\"--cacert /etc/ssl/own.pem\"\n",
			"hook.sh": "#!/bin/bash\ndeploy_cert() {\n  systemctl reload nginx\n}\n", "certs/star/config": "KEY_ALGO=rsa\nHOOK=/usr/local/bin/db-hook\n"},
			[]string{"its hook, by DIR/hook.sh and /usr/local/bin/db-hook.\n", "roots        = [\"/etc/ssl/own.pem\"]\n", "#   HOOK in config: DIR/hook.sh  -> reload = [\"nginx.service\"]  (see its deploy_cert)  (left out)\n"},
			[]string{"HOOK in config: DIR/hook.sh", "HOOK in certs/star/config: /usr/local/bin/db-hook"}},
		{"acme.sh's copies and hooks", "acme.sh", map[string]string{
			"account.conf": "CA_BUNDLE='/etc/ssl/private-ca.pem'\nNOTIFY_HOOK='mail'\n",
			"dehydrated.example.test_ecc/dehydrated.example.test.conf": "Le_Domain='dehydrated.example.test'\nLe_API='" + testDirectory + "'\nLe_RealKeyPath='/etc/nginx/ssl/web.key'\n" +
				"Le_RealFullChainPath='/etc/nginx/ssl/web.pem'\nLe_DeployHook='haproxy,ssh,'\nLe_PostHook='/usr/local/bin/after'\nSAVED_DEPLOY_HAPROXY_PEM_PATH='/etc/haproxy'\n" +
				"SAVED_DEPLOY_SSH_TOKEN='" + secretText + "'\nLe_ReloadCmd='__ACME_BASE64__START_c3lzdGVtY3RsIHJlbG9hZCBuZ2lueA==__ACME_BASE64__END_'\n"},
			[]string{"roots        = [\"/etc/ssl/private-ca.pem\"]\n", "#match  = [\"dehydrated.example.test\"]\n#dir    = \"/etc/ssl/autocertd/{name}\"\n#reload = [\"nginx.service\"]\n",
				"#  [\"/usr/bin/install\", \"-m\", \"0600\", \"/etc/ssl/autocertd/dehydrated.example.test/privkey.pem\", \"/etc/nginx/ssl/web.key\"],\n"},
			[]string{"NOTIFY_HOOK in account.conf: mail", "Le_PostHook in dehydrated.example.test_ecc/dehydrated.example.test.conf: /usr/local/bin/after", "deploy/haproxy.sh", "deploy/ssh.sh", "DEPLOY_HAPROXY_PEM_PATH at /etc/haproxy, for ",
				"fullchain.pem at /etc/nginx/ssl/web.pem, for dehydrated.example.test_ecc: ", "privkey.pem at /etc/nginx/ssl/web.key, for "}},
		{"lego has none", "lego", map[string]string{"certificates/lego.example.test.pem": ""},
			[]string{"#   lego keeps no hooks: they stand on its command line", "#   key and chain in one file (format = \"combined\") at DIR/certificates/lego.example.test.pem\n", "# Services that read files in DIR would"},
			[]string{"lego keeps no hooks", `key and chain in one file (format = "combined") at DIR/certificates/lego.example.test.pem, for lego.example.test: `}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tree")
			from := filepath.Join("testdata", tt.client)
			if tt.client == "acme.sh" {
				from = acmeshTree(t)
			}
			if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			for name, text := range tt.files {
				write(t, filepath.Join(dir, name), strings.ReplaceAll(text, " DIR/", " "+dir+"/"))
				if strings.Contains(name, "renewal-hooks") && !strings.Contains(name, "off") {
					if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			tree, err := Read(tt.client, dir, Options{Directories: []string{testDirectory}})
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(tree.TOML(Known{}), dir, "DIR")
			for _, words := range tt.says {
				if !strings.Contains(text, words) {
					t.Errorf("doesn't say %q:\n%s", words, text)
				}
			}
			left := tree.LeftOut()
			for i, sentence := range left {
				if i >= len(tt.leftOut) || !strings.Contains(strings.ReplaceAll(sentence, dir, "DIR"), tt.leftOut[i]) {
					t.Errorf("left out is %q", sentence)
				}
			}
			if len(left) != len(tt.leftOut) || strings.Contains(text+strings.Join(left, ""), secretText) {
				t.Errorf("left out are %q, want %q:\n%s", left, tt.leftOut, text)
			}
			loads(t, text)
			loads(t, proposedOutputs(text))
		})
	}
}

// proposedOutputs takes up the outputs that a configuration proposes.
func proposedOutputs(text string) string {
	_, outputs, found := strings.Cut(text, "#[[output]]")
	if !found {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines("#[[output]]" + outputs) {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "  [") {
			b.WriteString(rest)
		}
	}
	return strings.ReplaceAll(b.String(), "DIR/", "/")
}

// loads demands that a text is TOML, and outputs that can be written, whatever else may be missing.
func loads(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	write(t, file, text)
	_, err := config.Load(file, config.Checks{Outputs: func(c *config.Config, tables []config.Table) { lifecycle.BuildOutputs(c, tables) }})
	if err != nil && (strings.Contains(err.Error(), "TOML") || strings.Contains(err.Error(), "output")) {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestCertHome has the certificates of acme.sh in a folder of their own.
func TestCertHome(t *testing.T) {
	dir, home := acmeshTree(t), filepath.Join(t.TempDir(), "certs")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"dehydrated.example.test_ecc", "*.dehydrated2.example.test_ecc"} {
		if err := os.Rename(filepath.Join(dir, folder), filepath.Join(home, folder)); err != nil {
			t.Fatal(err)
		}
	}
	// Without it the account alone is there.
	tree, err := Read("acme.sh", dir, Options{})
	if err != nil || len(tree.Accounts) != 1 || tree.Accounts[0].Directory != testDirectory {
		t.Errorf("%+v, %v", tree, err)
	}
	write(t, filepath.Join(dir, "account.conf"), "CERT_HOME='"+home+"' # all of them\n")
	tree, err = Read("acme.sh", dir, Options{})
	if err != nil || len(tree.Certificates) != 2 || len(tree.Accounts) != 1 {
		t.Errorf("%+v, %v", tree, err)
	}
}

// TestConfiguredCA finds the directory of which lego keeps only the host among those of the configuration, if it is one.
func TestConfiguredCA(t *testing.T) {
	tree, err := Read("lego", "testdata/lego", Options{Names: map[string]string{testDirectory: "own", knownca.Directory(knownca.LetsEncrypt): "le"}})
	if err != nil || len(tree.Accounts) != 1 || tree.Accounts[0].CA != "own" {
		t.Errorf("%+v, %v", tree, err)
	}
	if _, err := Read("lego", "testdata/lego", Options{Names: map[string]string{testDirectory: "own", testDirectory + "2": "other"}}); err == nil {
		t.Error("two CAs at the host, and one was taken")
	}
}

// TestPlanted puts a pipe or an endless file in the place of each file of a tree, one after another: nothing hangs.
func TestPlanted(t *testing.T) {
	for _, client := range []string{"certbot", "lego", "dehydrated", "acme.sh"} {
		from := filepath.Join("testdata", client)
		if client == "acme.sh" {
			from = acmeshTree(t)
		}
		dir := filepath.Join(t.TempDir(), "tree")
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		if client == "certbot" {
			write(t, filepath.Join(dir, "cli.ini"), "")
			write(t, filepath.Join(dir, "renewal-hooks/deploy/x.sh"), "#!/bin/sh\n")
		}
		n := 0
		err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			saved := read(t, path)
			for _, plant := range []func() error{func() error { return unix.Mkfifo(path, 0o600) }, func() error { return os.Symlink("/dev/zero", path) }} {
				if err := os.Remove(path); err != nil {
					return err
				}
				if err := plant(); err != nil {
					return err
				}
				_, _ = Read(client, dir, Options{Directories: []string{testDirectory}}) // whether anything is left is all one
				n++
			}
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, []byte(saved), 0o600)
		})
		if err != nil || n < 10 {
			t.Errorf("%s: %d files, %v", client, n, err)
		}
	}
}

// FuzzTree reads folders of other clients in which one file holds anything: what is written is TOML, whatever stands there,
// and the text of a file gets into it as text only.
func FuzzTree(f *testing.F) {
	places := []struct{ client, file string }{
		{"certbot", "renewal/multi.conf"}, {"certbot", "cli.ini"}, {"certbot", "renewal-hooks/deploy/x"},
		{"dehydrated", "config"}, {"dehydrated", "certs/star/config"}, {"dehydrated", "hook.sh"},
		{"lego", "accounts/ca.example.test/ssl@example.test/account.json"}, {"lego", "certificates/lego.example.test.json"},
		{"acme.sh", "account.conf"}, {"acme.sh", "dehydrated.example.test_ecc/dehydrated.example.test.conf"}, {"acme.sh", "ca/ca.example.test/dir/ca.conf"},
	}
	for i, seed := range []string{"[renewalparams]\nrenew_hook = '''a\nb'''\nauthenticator = dns-rfc2136\n", "deploy-hook = systemctl reload 'x\n", "#!/bin/sh\nsystemctl reload a\\\nb\n",
		"HOOK=\"${BASEDIR}/x\n[ca.x]\"\nCA=$(x)\n", "HOOK=`x", "#!/bin/sh\n", `{"email":"a\"b","server":"https://x/\u0000"}`, `{"certUrl":"https://x/"}`,
		"CERT_HOME='/proc'\nCA_BUNDLE=\"a\nb\"\n", "Le_Domain=x\nLe_RealKeyPath='/a\n\"b'\nLe_DeployHook=',,x'\n", "CA_EMAIL=\"a\n[[output]]\"\n"} {
		f.Add(i, seed)
	}
	dirs := map[string]string{}
	for _, p := range places {
		if dirs[p.client] != "" {
			continue
		}
		from := filepath.Join("testdata", p.client)
		if p.client == "acme.sh" {
			from = acmeshTree(f)
		}
		dirs[p.client] = filepath.Join(f.TempDir(), fmt.Sprint("tree", len(dirs)))
		if err := os.CopyFS(dirs[p.client], os.DirFS(from)); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, place int, text string) {
		p := places[max(place, -place, 0)%len(places)]
		file := filepath.Join(dirs[p.client], p.file)
		before, err := os.ReadFile(file)
		write(t, file, text)
		defer func() {
			if err != nil {
				_ = os.Remove(file)
				return
			}
			write(t, file, string(before))
		}()
		tree, rerr := Read(p.client, dirs[p.client], Options{Directories: []string{testDirectory}})
		if rerr != nil {
			return
		}
		_ = tree.LeftOut()
		toml := tree.TOML(Known{})
		main := filepath.Join(t.TempDir(), "config.toml")
		write(t, main, toml)
		if _, err := config.Load(main, config.Checks{}); err != nil && strings.Contains(err.Error(), "TOML") {
			t.Errorf("%v\n%s", err, toml)
		}
		for line := range strings.Lines(toml) {
			if len(line) > 20_000 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
	})
}

// FuzzCommand looks through command lines that are anything.
func FuzzCommand(f *testing.F) {
	for _, seed := range []string{"true && systemctl reload nginx", "a '", "a \"$(b", "a > b 2>&1 | c", "`", "\\", "$", "${", "a=$(", "\x00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		units, _, _ := reloads(text)
		for _, unit := range units {
			if !unitName.MatchString(unit) {
				t.Errorf("the unit %q", unit)
			}
		}
		if shown := withoutSecrets(text); strings.ContainsAny(shown, "\n\x1b") {
			t.Errorf("shown is %q", shown)
		}
		parseShell(text, map[string]string{})
		parseConfigObj(text)
		parseIni(text)
	})
}
