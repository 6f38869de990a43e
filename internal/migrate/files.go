package migrate

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"autocertd/internal/durable"
)

// maxFile bounds what is read of one file; those of clients have a few KiB.
const maxFile = 4 << 20

func readFile(path string) ([]byte, error) { return durable.Read(path, maxFile) }

func readJSON(path string, v any) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if json.Unmarshal(data, v) != nil { // its words may hold some of the key
		return fmt.Errorf("%s isn't the JSON that is expected there", filepath.Base(path))
	}
	return nil
}

// program is the first word of a command line. What follows it may be a secret.
func program(command string) string {
	if words := strings.Fields(command); len(words) > 0 {
		return words[0]
	}
	return ""
}
