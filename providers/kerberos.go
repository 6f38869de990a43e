package providers

import (
	"errors"
	"fmt"
	"io/fs"

	"autocertd/internal/durable"
)

// checkKeytab reports why a file of Kerberos keys can't be used, or everybody can.
func checkKeytab(path string) error {
	f, info, err := durable.OpenRegular(path)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; let the group of the user that runs the daemon read it: chgrp autocertd %s && chmod 0640 %s", err, path, path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; export our key to it: kadmin -q 'ktadd -k %s autocertd', or with Samba: samba-tool domain exportkeytab %s --principal=autocertd@REALM", err, path, path)
	}
	if errors.Is(err, durable.ErrIrregular) {
		return fmt.Errorf("%s %w", path, durable.ErrIrregular)
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("%s may be used by everybody (mode %04o) and holds keys: chmod o= %s", path, mode, path)
	}
	return nil
}

// kerberosEnv returns the environment for GSS-TSIG. With a keytab each run gets a ticket of its own and keeps it in
// memory, so that none expires; without one it uses the tickets of whoever runs the daemon.
func (o nsupdateOptions) kerberosEnv(opts Options) []string {
	env := environment(append([]string{"KRB5_CONFIG", "KRB5CCNAME", "KRB5_CLIENT_KTNAME"}, o.Env...))
	if o.Keytab != "" {
		env = append(env, "KRB5_CLIENT_KTNAME=FILE:"+opts.path(o.Keytab), "KRB5CCNAME=MEMORY:autocertd")
	}
	return env
}
