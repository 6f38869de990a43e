package lifecycle

import "autocertd/internal/deploy"

// OutputsOf returns where the files of a certificate go.
func (s *Snapshot) OutputsOf(name string) []deploy.Output { return s.outputs(name) }
