package deploy

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// notifier has the kernel report changes in folders (inotify), as far as it watches them.
type notifier struct {
	fd   int
	file *os.File // the same
}

// newNotifier returns nil where nothing can be watched.
func newNotifier() *notifier {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	return &notifier{fd, os.NewFile(uintptr(fd), "inotify")}
}

const (
	changes = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO
	moves   = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
)

// add watches a folder: all that changes in it, or only whether it is moved away. The error says so when it isn't watched, as
// with more folders than fs.inotify.max_user_watches allows, and on file systems that others change too.
func (n *notifier) add(folder string, within bool) (watch int32, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return 0, err
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC,
		unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.CODA_SUPER_MAGIC:
		return 0, errors.ErrUnsupported
	}
	mask := uint32(moves | unix.IN_ONLYDIR | unix.IN_MASK_ADD)
	if within {
		mask |= changes
	}
	wd, err := unix.InotifyAddWatch(n.fd, folder, mask)
	return int32(wd), err
}

// change is what was noticed in a watched folder.
type change struct {
	watch int32
	moved bool // the folder itself was moved or removed
	gone  bool // it isn't watched any more
	lost  bool // changes were too many to be told one by one; watch means nothing
}

// next waits for changes. It ends with an error once the notifier is closed.
func (n *notifier) next(buf []byte, each func(change)) error {
	size, err := n.file.Read(buf)
	if err != nil {
		return err
	}
	for at := 0; at+unix.SizeofInotifyEvent <= size; {
		event := buf[at:]
		mask := binary.NativeEndian.Uint32(event[4:])
		each(change{
			watch: int32(binary.NativeEndian.Uint32(event)),
			moved: mask&moves != 0,
			gone:  mask&unix.IN_IGNORED != 0,
			lost:  mask&unix.IN_Q_OVERFLOW != 0,
		})
		at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(event[12:]))
	}
	return nil
}

func (n *notifier) close() { _ = n.file.Close() }
