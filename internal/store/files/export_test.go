package files

import "time"

// OpenPolling is Open where there is no inotify.
func OpenPolling(root, command string) (*Store, error) {
	f, err := Open(root, command)
	if err == nil {
		f.polls, f.lookAgain = true, 50*time.Millisecond
	}
	return f, err
}
