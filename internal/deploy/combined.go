package deploy

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// single is the format combined: one file, replaced by one rename. Its marker lies beside it.
type single struct {
	location
	file file
}

func (s *single) path() string { return filepath.Join(s.dir, s.file.name) }

func (s *single) marker() string { return ours + s.file.name + ".pending" }

func (s *single) paths() []string { return []string{s.path()} }

func (s *single) env() []string { return []string{"AUTOCERTD_COMBINED=" + s.path()} }

func (s *single) look() (right bool, change string, err error) {
	dir, err := openFolder(s.dir, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	defer dir.close()
	right, err = dir.same(s.file, s.owner)
	return right, dir.marked(s.marker()), err
}

func (s *single) write(change string) error {
	dir, err := s.disk.makeDir(s.dir)
	if err != nil {
		return err
	}
	defer dir.close()
	if s.marked {
		// Dying between these leaves no marker of an earlier change, and its file, which differs from what is to be written.
		if err := s.disk.remove(dir, s.marker()); err != nil {
			return err
		}
		// Dying after this one leaves a marker beside the old file: a difference and a marker, both healed together.
		if err := s.disk.mark(dir, s.marker(), change); err != nil {
			return err
		}
	}
	// Dying within leaves at most a temporary file, which the next try removes.
	if err := s.disk.replace(dir, s.file, s.owner); err != nil {
		return err
	}
	// A power failure before this line may bring the old file back, whole. The next look then finds a difference.
	return s.disk.sync(dir)
}

func (s *single) done() error {
	dir, err := openFolder(s.dir, nil)
	if err != nil {
		return err
	}
	defer dir.close()
	return s.disk.remove(dir, s.marker())
}
