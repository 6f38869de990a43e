package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"autocertd/internal/durable"
	"autocertd/internal/printable"
)

// Service is what systemd says of the daemon's own unit: what it may write, which a command by hand doesn't meet.
type Service struct {
	Unit string

	paths  []pathRule
	tmp    bool  // /tmp and /var/tmp are its own
	chown  bool  // it may give files away
	groups []int // of the process that runs; nil when none does
}

// pathRule says of all below a path whether it may be written. The longest path counts.
type pathRule struct {
	path     string
	writable bool
}

// serviceProperties are what is asked of systemd.
var serviceProperties = []string{"LoadState", "MainPID", "User", "ProtectSystem", "ProtectHome", "PrivateTmp", "StateDirectory",
	"ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "AmbientCapabilities"}

// Service asks systemd about the unit that runs the daemon. It is nil when no systemd is there or knows it, and when the
// unit runs as root or as another user than we are: then it says nothing about us.
func (d *Deployer) Service(ctx context.Context, unit string) *Service {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	args := []string{"systemctl", "show", "--property=" + strings.Join(serviceProperties, ","), "--", unit}
	out, err := d.runner.Run(ctx, args, append(baseEnv(), "LC_ALL=C"))
	if err != nil {
		return nil
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key] = value
	}
	if values["LoadState"] != "loaded" || !isUs(values["User"]) {
		return nil
	}
	s := newService(unit, values)
	if pid, _ := strconv.Atoi(values["MainPID"]); pid > 0 {
		s.groups = groupsOf(pid)
	}
	return s
}

// newService reads the properties of a unit.
func newService(unit string, values map[string]string) *Service {
	s := &Service{Unit: unit, tmp: values["PrivateTmp"] == "yes", chown: strings.Contains(values["AmbientCapabilities"], "cap_chown")}
	add := func(writable bool, paths ...string) {
		for _, path := range paths {
			if path = strings.TrimLeft(path, "-+"); filepath.IsAbs(path) {
				s.paths = append(s.paths, pathRule{filepath.Clean(path), writable})
			}
		}
	}
	switch values["ProtectSystem"] {
	case "strict":
		add(false, "/")
	case "full":
		add(false, "/usr", "/boot", "/efi", "/etc")
	case "yes":
		add(false, "/usr", "/boot", "/efi")
	}
	if home := values["ProtectHome"]; home != "" && home != "no" {
		add(false, "/home", "/root", "/run/user")
	}
	add(false, strings.Fields(values["ReadOnlyPaths"])...)
	add(false, strings.Fields(values["InaccessiblePaths"])...)
	add(true, strings.Fields(values["ReadWritePaths"])...)
	for _, name := range strings.Fields(values["StateDirectory"]) {
		add(true, "/var/lib/"+name)
	}
	slices.SortStableFunc(s.paths, func(a, b pathRule) int { return cmp.Compare(len(b.path), len(a.path)) })
	return s
}

// isUs reports whether a user of a unit is who we are, and not root.
func isUs(name string) bool {
	u, err := user.Lookup(name)
	return err == nil && u.Uid != "0" && u.Uid == strconv.Itoa(os.Geteuid())
}

// groupsOf returns all groups of a process, nil when they can't be found out.
func groupsOf(pid int) (groups []int) {
	text, err := durable.Read(fmt.Sprintf("/proc/%d/status", pid), 1<<20)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "Gid" && key != "Groups" {
			continue
		}
		for _, field := range strings.Fields(value) {
			if gid, err := strconv.Atoi(field); err == nil {
				groups = append(groups, gid)
			}
		}
	}
	return groups
}

// CheckService looks whether the service may do for an output what a command by hand may: it isn't locked in, and has the
// groups of now. The error is an [*Error].
func (o Output) CheckService(name string, s *Service) error {
	dir := o.dir(name)
	fail := func(cure, format string, args ...any) error {
		return &Error{Output: o.ID(name), Step: StepFiles, Subject: dir, cure: cure, Err: fmt.Errorf(format, args...)}
	}
	if s.tmp && (below(dir, "/tmp") || below(dir, "/var/tmp")) {
		return fail("choose another dir in the [[output]]", "the service has a /tmp of its own (PrivateTmp=), so that nobody else sees %s", dir)
	}
	if !s.mayWrite(dir) {
		fixed := o.fixedDir()
		dropIn := "/etc/systemd/system/" + s.Unit + ".d/outputs.conf"
		return fail(fmt.Sprintf("open it to the service by a drop-in of its unit:\n"+
			"mkdir -p %[1]s && test -e %[2]s || echo '[Service]' >%[2]s\necho 'ReadWritePaths=-%[3]s' >>%[2]s\nsystemctl daemon-reload && systemctl restart %[4]s",
			filepath.Dir(dropIn), dropIn, fixed, s.Unit), "the service may not write %s: %s doesn't open it by ReadWritePaths=", dir, s.Unit)
	}
	own, err := lookupOwner(o.Owner, o.Group)
	if err != nil || own.gid == keep || s.groups == nil || s.chown || slices.Contains(s.groups, own.gid) {
		return nil // CheckFiles says what is wrong with names
	}
	return fail("the daemon has the groups that its user had when it began: systemctl restart "+s.Unit, "the daemon that runs isn't in group %s yet", o.Group)
}

func (s *Service) mayWrite(dir string) bool {
	for _, rule := range s.paths {
		if below(dir, rule.path) {
			return rule.writable
		}
	}
	return true
}

// ErrReloadForbidden says that polkit doesn't let us reload a unit.
var ErrReloadForbidden = errors.New("may not be reloaded by us")

// CheckReload finds out whether we may reload a unit, without reloading it: it asks for the reload in a mode that systemd
// takes for starts only, which it refuses after it has asked polkit. The error wraps [ErrReloadForbidden]; nil also stands
// for what couldn't be found out.
func (d *Deployer) CheckReload(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	args := []string{"systemctl", "--no-ask-password", "--job-mode=isolate", "try-reload-or-restart", "--", unit}
	out, err := d.runner.Run(ctx, args, append(baseEnv(), "LC_ALL=C"))
	text := printable.End(out)
	if err == nil || !strings.Contains(text, "authentication required") && !strings.Contains(text, "Access denied") && !strings.Contains(text, "Permission denied") {
		return nil
	}
	first, _, _ := strings.Cut(text, "\n")
	return fmt.Errorf("%s %w: %s", unit, ErrReloadForbidden, first)
}
