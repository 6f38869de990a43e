# make            build bin/autocertd
# make help       every target

DESTDIR       ?=
PREFIX        ?= /usr/local
SYSCONFDIR    ?= /etc
BINDIR        ?= $(PREFIX)/bin
UNITDIR       ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR   ?= $(PREFIX)/lib/sysusers.d
DOCDIR        ?= /usr/share/doc/autocertd
BASHDIR       ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR        ?= $(PREFIX)/share/zsh/site-functions
FISHDIR       ?= $(PREFIX)/share/fish/vendor_completions.d

GO            ?= go
TESTFLAGS     ?= -timeout 20m
BENCHTIME     ?= 1s
ROUNDS        ?= 5
FUZZTIME      ?= 30s
# Go's default of 60s for each input lets one target that finds new ground all the time do little else.
MINIMIZE      ?= 20x

CONFDIR        = $(SYSCONFDIR)/autocertd
# Of systemd, by StateDirectory= in the unit.
STATEDIR       = /var/lib/autocertd
DOCS           = README.md LICENSE CHANGELOG.md SECURITY.md config.example.toml systemd/outputs.conf.example systemd/autocertd.rules
# Where the links of README.md look for them.
PAGES          = $(wildcard docs/*.md)
GOBUILD        = CGO_ENABLED=0 $(GO) build -trimpath
# The folders of the test files that hold a line beginning with "func $(1)".
folders        = grep -rl --include='*_test.go' '^func $(1)' . | xargs -r dirname | sort -u

# named lives in a folder that only root's PATH has on Debian.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := build
.PHONY: build demo deps test lint race bench fuzz mutate install uninstall clean help

build: ## build bin/autocertd, one static binary
	$(GOBUILD) -o bin/autocertd ./cmd/autocertd

demo: build ## try it on loopback with a CA and a DNS server; ONCE=1 ends by itself
	$(GOBUILD) -o bin/sandbox ./cmd/sandbox
	bin/sandbox -daemon bin/autocertd -dir demo $(if $(filter 1,$(ONCE)),-once)

deps: ## install the Debian packages (named, gcc, …) that the tests need and that are missing, build step-ca
	.ci/packages
	cd internal/testbed/stepca && CGO_ENABLED=0 $(GO) tool -n step-ca

test: deps ## run all tests, after "make deps"
	$(GO) test $(TESTFLAGS) ./...

lint: ## gofmt, go vet, staticcheck, go mod tidy, and who may import what
	@files="$$("$$($(GO) env GOROOT)/bin/gofmt" -l .)" || exit 1; \
	if [ -n "$$files" ]; then echo "gofmt -w is due on:" $$files >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff
	$(GO) test -count=1 ./internal

# The tests of the command that change a running daemon, or have two processes meet: the program that they start is the test
# binary, so the detector sees both.
RACY           = 'TestReload|TestEveryKey|TestFirstStart$$|TestHangup|TestStatusFollows|TestFullDisk|TestLocks|TestRestart|TestSharedNames|TestDoings|TestOutage'

race: deps ## run the tests of the packages, and some of the command, under the race detector; needs gcc
	CGO_ENABLED=1 $(GO) test -race -short $(TESTFLAGS) $$($(GO) list ./... | grep -v -e /cmd/ -e /bench)
	CGO_ENABLED=1 $(GO) test -race $(TESTFLAGS) -run $(RACY) ./cmd/autocertd

bench: deps ## run the benchmarks; BENCHTIME=1s, ROUNDS=5 beside the bare protocol
	@set -e; for dir in $$($(call folders,Benchmark) | grep -vx ./bench); do \
		$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -timeout 30m "$$dir"; \
	done
	AUTOCERTD_BENCH_DISK='$(DISK)' AUTOCERTD_PROFILE='$(abspath $(PROFILE))' \
		$(GO) test -run '^$$' -bench . -benchtime $(ROUNDS)x -timeout 30m ./bench

fuzz: ## run each fuzz target for FUZZTIME=30s
	@set -e; for dir in $$($(call folders,Fuzz)); do \
		for target in $$(grep -ho '^func Fuzz[[:alnum:]_]*' "$$dir"/*_test.go | cut -d' ' -f2); do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime $(MINIMIZE) "$$dir"; \
		done; \
	done

# Changes the program in one place at a time, and shows the changes that no test notices; those in the expressions of a case
# aren't covered, it says, though they are. Where most of a package deals with servers and files, FILES names the rules, and
# TESTS those that judge them in a second.
GREMLINS       = $(GO) run github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0
MUTATED       ?= scheduler internal/budget internal/lifecycle internal/dns01 internal/durable internal/config
FILES_lifecycle = decide.go
TESTS_lifecycle = -run=^Test(Decide|NextLook|Overdue|WaitingError|Settling|AskOrderAt|Renewal|ShortLived|Schedule|Window|FirstHurry)$$
FILES_dns01    = record.go deliver.go
TESTS_dns01    = -run=^Test(Record|RemovalBackoff|Deliver)
TESTS_config   = -skip=^Fuzz
# Of a package's folder: -E and the name for each file that holds no rules.
others         = $(if $(FILES_$(notdir $(1))),$(patsubst %,-E '\b%$$',$(filter-out %_test.go $(FILES_$(notdir $(1))),$(notdir $(wildcard $(1)/*.go)))))

mutate: deps ## look for changes of the rules that no test notices; MUTATED="scheduler …"
	@set -e; $(foreach dir,$(MUTATED),echo '$(dir)'; GOFLAGS='-vet=off $(TESTS_$(notdir $(dir)))' \
		$(GREMLINS) unleash --workers 1 --timeout-coefficient 30 $(call others,$(dir)) './$(dir)';)

# Doesn't build, so that root needs no Go. Says what a person does next, and nothing else.
install: ## put what "make" built in place: DESTDIR, PREFIX=/usr/local
	@test -x bin/autocertd || { echo 'Nothing to install yet: run "make" first.' >&2; exit 1; }
	@install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(SYSUSERSDIR)' '$(DESTDIR)$(DOCDIR)/docs' \
		'$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	@install -m 0755 bin/autocertd '$(DESTDIR)$(BINDIR)/autocertd'
	@umask 022; sed -e 's|/usr/local/bin/|$(BINDIR)/|' -e 's|/usr/share/doc/autocertd|$(DOCDIR)|' \
		systemd/autocertd.service >'$(DESTDIR)$(UNITDIR)/autocertd.service'
	@install -m 0644 systemd/autocertd.sysusers.conf '$(DESTDIR)$(SYSUSERSDIR)/autocertd.conf'
	@install -m 0644 $(DOCS) '$(DESTDIR)$(DOCDIR)'
	@install -m 0644 $(PAGES) '$(DESTDIR)$(DOCDIR)/docs'
	@install -d '$(DESTDIR)$(DOCDIR)/docs/examples'
	@install -m 0755 docs/examples/* '$(DESTDIR)$(DOCDIR)/docs/examples'
	@umask 022; bin/autocertd completion bash >'$(DESTDIR)$(BASHDIR)/autocertd'
	@umask 022; bin/autocertd completion zsh  >'$(DESTDIR)$(ZSHDIR)/_autocertd'
	@umask 022; bin/autocertd completion fish >'$(DESTDIR)$(FISHDIR)/autocertd.fish'
	@test -n '$(DESTDIR)' || systemd-sysusers '$(SYSUSERSDIR)/autocertd.conf'
	@install -d -m 0750 $(if $(DESTDIR),,-g autocertd) '$(DESTDIR)$(CONFDIR)' '$(DESTDIR)$(CONFDIR)/conf.d'
	@test -e '$(DESTDIR)$(CONFDIR)/config.toml' || \
		install -m 0640 $(if $(DESTDIR),,-g autocertd) config.example.toml '$(DESTDIR)$(CONFDIR)/config.toml'
	@test -n '$(DESTDIR)' || test -d '$(STATEDIR)' || install -d -m 0755 -o autocertd -g autocertd '$(STATEDIR)'
	@test -n '$(DESTDIR)' || test ! -d /run/systemd/system || systemctl daemon-reload
	@echo 'Installed: $(DESTDIR)$(BINDIR)/autocertd, the unit autocertd.service, the user autocertd.'
	@echo 'Next ($(DOCDIR)/README.md tells more):'
	@echo '  1. a TSIG key, in the DNS server and in $(CONFDIR)/tsig.key'
	@echo '  2. your hostnames in $(CONFDIR)/config.toml'
	@echo '  3. sudo autocertd check --live'
	@echo '  4. sudo systemctl enable --now autocertd'

uninstall: ## remove what install put in place; keeps configuration, state and user
	@test -n '$(DESTDIR)' || test ! -d /run/systemd/system || systemctl disable --now autocertd.service
	@rm -f '$(DESTDIR)$(BINDIR)/autocertd' '$(DESTDIR)$(UNITDIR)/autocertd.service' '$(DESTDIR)$(SYSUSERSDIR)/autocertd.conf' \
		'$(DESTDIR)$(BASHDIR)/autocertd' '$(DESTDIR)$(ZSHDIR)/_autocertd' '$(DESTDIR)$(FISHDIR)/autocertd.fish' \
		$(foreach doc,$(DOCS),'$(DESTDIR)$(DOCDIR)/$(notdir $(doc))') $(foreach page,$(PAGES),'$(DESTDIR)$(DOCDIR)/$(page)')
	@rm -rf '$(DESTDIR)$(DOCDIR)/docs/examples'
	@test ! -d '$(DESTDIR)$(DOCDIR)/docs' || rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(DOCDIR)/docs' '$(DESTDIR)$(DOCDIR)'
	@test -n '$(DESTDIR)' || test ! -d /run/systemd/system || systemctl daemon-reload
	@echo 'Kept: $(CONFDIR), $(STATEDIR), the user autocertd, and your drop-ins and rules; docs/operate.md says how to remove them.'

clean: ## remove bin/ and demo/
	rm -rf bin demo

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 19
