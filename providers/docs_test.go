package providers

import (
	"strings"
	"testing"
)

// The example in the text is the one that is shipped and tested.
func TestDocumentedExample(t *testing.T) {
	text := readFile(t, "../docs/providers.md")
	if example := readFile(t, "../docs/examples/exec-nsupdate.sh"); !strings.Contains(text, "```sh\n"+example+"```") {
		t.Error("docs/providers.md shows another program than docs/examples/exec-nsupdate.sh")
	}
	for _, name := range Names() {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), `type = "`+name+`"`) {
			t.Errorf("docs/providers.md has no example for type %s", name)
		}
	}
}
