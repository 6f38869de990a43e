package lifecycle

import (
	"autocertd/internal/config"
	"autocertd/internal/deploy"
)

// BuildOutputs builds the outputs of a configuration from its tables; see [config.Checks].
func BuildOutputs(c *config.Config, tables []config.Table) deploy.Outputs {
	all := make([]deploy.Table, len(tables))
	for i, table := range tables {
		all[i] = deploy.Table(table)
	}
	certificates := make([]deploy.Certificate, len(c.Certificates))
	for i, cert := range c.Certificates {
		certificates[i] = deploy.Certificate{Name: cert.Name, KeyElsewhere: cert.CSR != nil}
	}
	return deploy.NewOutputs(all, certificates, c.StateDir)
}
