package hostile

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"autocertd/internal/testbed"
)

// Main is the program hostileca. It runs a CA for each mode that it is called with, or for all of them, until its
// standard input ends:
//
//	hostileca -dns 127.0.0.1:5300 -dir DIR [MODE ...]
//
// For each it writes DIR/MODE.tls.pem, the roots of its HTTPS, and DIR/MODE.roots.pem, those of its certificates, and
// prints a line "MODE DIRECTORY". Each line that it then reads is a command; a line "done" ends what it answers:
//
//	turn            all CAs become hostile
//	back            all CAs behave
//	seen MODE KIND  prints how many requests of a kind there were since then
//	visits          prints a line "MODE N" for each mode that led somebody to a stranger
func Main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hostileca:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("hostileca", flag.ContinueOnError)
	dns := flags.String("dns", "", "host:port of the name server that validations ask")
	dir := flags.String("dir", ".", "where the roots are written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	modes := flags.Args()
	if len(modes) == 0 {
		modes = Modes()
	}
	cas := map[string]*CA{}
	for _, mode := range modes {
		ca, err := Start(mode, testbed.CAConfig{DNS: *dns})
		if err != nil {
			return err
		}
		defer ca.Close()
		if err := ca.writeRoots(*dir, mode); err != nil {
			return err
		}
		cas[mode] = ca
		fmt.Fprintln(out, mode, ca.Directory())
	}
	fmt.Fprintln(out, "done")
	for lines := bufio.NewScanner(in); lines.Scan(); fmt.Fprintln(out, "done") {
		switch words := strings.Fields(lines.Text()); {
		case len(words) == 1 && (words[0] == "turn" || words[0] == "back"):
			for _, ca := range cas {
				ca.Turn(words[0] == "turn")
			}
		case len(words) == 1 && words[0] == "visits":
			for _, mode := range modes {
				if n := cas[mode].Stranger.Visits(); n > 0 {
					fmt.Fprintln(out, mode, n)
				}
			}
		case len(words) == 3 && words[0] == "seen" && cas[words[1]] != nil:
			fmt.Fprintln(out, cas[words[1]].Seen(words[2]))
		default:
			return fmt.Errorf("no command %q", lines.Text())
		}
	}
	return nil
}

func (c *CA) writeRoots(dir, mode string) error {
	roots, err := c.RootsPEM()
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{".tls.pem": c.TLSRootsPEM(), ".roots.pem": roots} {
		if err := os.WriteFile(filepath.Join(dir, mode+name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
