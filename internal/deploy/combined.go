package deploy

import "path/filepath"

// single is the format combined: one file, replaced by one rename. Its marker lies beside it.
type single struct {
	location
	file file
}

func (s *single) path() string { return filepath.Join(s.dir, s.file.name) }

func (s *single) marker() string { return filepath.Join(s.dir, ours+s.file.name+".pending") }

func (s *single) paths() []string { return []string{s.path()} }

func (s *single) env() []string { return []string{"AUTOCERTD_COMBINED=" + s.path()} }

func (s *single) right() (bool, error) { return same(s.path(), s.file, s.owner) }

func (s *single) write() error {
	if err := s.disk.makeDir(s.dir); err != nil {
		return err
	}
	if s.marked {
		// Dying after this line leaves a marker beside the old file: a difference and a marker, both healed together.
		if err := s.disk.touch(s.marker()); err != nil {
			return err
		}
	}
	// Dying within leaves at most a temporary file, which the next try removes.
	if err := s.disk.replace(s.path(), s.file, s.owner); err != nil {
		return err
	}
	// A power failure before this line may bring the old file back, whole. The next look then finds a difference.
	return s.disk.sync(s.dir)
}
