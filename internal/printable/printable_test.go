package printable

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain text stays", "no such zone: größer", "no such zone: größer"},
		{"line ends are blanks", "a\r\nb\n\n c", "a b c"},
		{"a forged log line is one line", "bad\nlevel=ERROR msg=x", "bad level=ERROR msg=x"},
		{"escapes lose their effect", "a\x1b]0;title\x07\x1b[2Jb", "a]0;title[2Jb"},
		{"eight-bit escapes go", "a\u009b31mb", "a31mb"},
		{"directions go", "a\u202egnp.exe\u2066\u200b\ufeff", "agnp.exe"},
		{"broken UTF-8 goes", "a\xff\xc3b", "ab"},
		{"nothing", " \t\n", ""},
	}
	for _, tt := range tests {
		if got := Line(tt.in); got != tt.want {
			t.Errorf("%s: Line(%q) = %q, want %q", tt.name, tt.in, got, tt.want)
		}
	}
}

func TestBounds(t *testing.T) {
	long := strings.Repeat("ä", 5<<20)
	if got := utf8.RuneCountInString(Line(long)); got != Max+2 {
		t.Errorf("Line keeps %d characters, want %d and the sign that there were more", got, Max)
	}
	if got := Line(long[:2*Max]); got != long[:2*Max] {
		t.Error("Line cuts a text that isn't too long")
	}
	if got := Short("two words", 3); got != "two …" {
		t.Errorf("Short = %q", got)
	}
	if got := Lines("a\n\tb\x1b\n"); got != "a\n b" {
		t.Errorf("Lines = %q", got)
	}
	if got := End([]byte("ä" + strings.Repeat("b", Max-1))); got != strings.Repeat("b", Max-1) {
		t.Errorf("End begins with %q", got[:4])
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b[2J\u202e\n")
	f.Fuzz(func(t *testing.T, text string) {
		got := Line(text)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("Line(%q) holds %q", text, r)
			}
		}
		if utf8.RuneCountInString(got) > Max+2 {
			t.Fatalf("Line keeps %d characters", utf8.RuneCountInString(got))
		}
		if again := Line(got); again != got && !strings.HasSuffix(got, " …") {
			t.Fatalf("Line(%q) = %q", got, again)
		}
	})
}
