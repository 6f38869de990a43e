package preflight

import (
	"context"
	"errors"
	"fmt"

	"autocertd/internal/deploy"
)

// whyDeploy is why outputs matter.
const whyDeploy = "the certificate would be issued, and its service would go on with the old one"

// checkOutputs looks whether the files of each certificate can be written, and whether what comes after them exists.
func (cfg Config) checkOutputs(ctx context.Context) (list []Finding) {
	const subject = "outputs"
	cfg.Progress(subject, "files")
	defer cfg.Progress(subject, "")
	var service *deploy.Service
	if cfg.Unit != "" {
		service = cfg.Deployer.Service(ctx, cfg.Unit)
	}
	var units []Finding
	users := map[string][]string{} // of programs and units, the names of certificates
	for _, c := range cfg.Certificates {
		for _, o := range c.Outputs {
			for _, args := range o.Run {
				program := o.Program(c.Name, args)
				users[program] = append(users[program], c.Name)
			}
			for _, unit := range o.Reload {
				users[unit] = append(users[unit], c.Name)
			}
		}
	}
	seen := map[string]bool{}
	first := func(what string) bool {
		defer func() { seen[what] = true }()
		return !seen[what]
	}
	for _, c := range cfg.Certificates {
		for _, o := range c.Outputs {
			if ctx.Err() != nil {
				return list
			}
			err := o.CheckFiles(c.Name)
			if err == nil && service != nil {
				err = o.CheckService(c.Name, service)
			}
			list = append(list, forCertificates([]string{c.Name}, judgeOutput(o.ID(c.Name), "files", "can be written", err))...)
			for _, args := range o.Run {
				if program := o.Program(c.Name, args); first(program) {
					list = append(list, forCertificates(users[program], judgeOutput(program, "run", "can be run", o.CheckProgram(c.Name, args)))...)
				}
			}
			for _, unit := range o.Reload {
				if first(unit) {
					cfg.Progress(subject, unit)
					err := cfg.Deployer.CheckUnit(ctx, unit)
					if err == nil {
						err = cfg.Deployer.CheckReload(ctx, unit)
					}
					units = append(units, forCertificates(users[unit], judgeUnit(unit, err))...)
				}
			}
		}
	}
	return append(list, units...)
}

func judgeOutput(subject, check, good string, err error) Finding {
	if err == nil {
		return Finding{Subject: subject, Check: check, Status: OK, Text: good}
	}
	f := Finding{
		Subject: subject,
		Check:   check,
		Status:  Failure,
		Text:    err.Error(),
		Why:     whyDeploy,
	}
	if e, ok := errors.AsType[*deploy.Error](err); ok {
		f.Text, f.Cure = e.Err.Error(), e.Cure()
	}
	return f
}

func judgeUnit(unit string, err error) Finding {
	f := Finding{Subject: unit, Check: "reload", Status: OK, Text: "systemd knows the unit"}
	switch {
	case errors.Is(err, deploy.ErrReloadForbidden):
		f.Status, f.Text, f.Why = Failure, err.Error(), whyDeploy
		f.Cure = fmt.Sprintf("allow it by a rule for polkit (Debian's package polkitd):\n"+
			"test -e %[1]s || install -D -m 0644 /usr/share/doc/autocertd/autocertd.rules %[1]s\n"+
			`sed -i 's/var units = \[/&"%[2]s", /' %[1]s`, "/etc/polkit-1/rules.d/50-autocertd.rules", unit)
	case errors.Is(err, deploy.ErrNoSystemd):
		f.Status, f.Text = Warning, err.Error()
		f.Why = "nothing here reloads the unit when its files change"
		f.Cure = "where there is no systemd, use run in the place of reload:\n" + `run = [["/usr/sbin/service", "NAME", "reload"]]`
	case err != nil:
		f.Status, f.Text, f.Why = Failure, err.Error(), whyDeploy
		f.Cure = fmt.Sprintf("correct reload in the [[output]], or install the service; to see how it is called:\nsystemctl list-unit-files '*%s*'", stem(unit))
	}
	return f
}

// stem is the beginning of a unit's name, short enough to match although the rest is misspelt.
func stem(unit string) string { return unit[:min(3, len(unit))] }

// Deploys reports whether the finding is about what comes after issuing.
func (f Finding) Deploys() bool { return f.Check == "files" || f.Check == "run" || f.Check == "reload" }
