package term

import (
	"io"
	"slices"
	"strings"
)

// Table is columns, rows, and texts that stand beside their rows where there is room, else below them.
type Table struct {
	Columns []Column
	Rows    []Row
	Text    TextColumn
	Indent  int    // columns before lines below a row
	Narrow  *Table // is laid out instead where an elastic column would get less than its least
}

// Column is a column of a [Table].
type Column struct {
	Head   string
	Hidden bool
	// Least makes the column elastic: it takes the room that the others leave, at least so much, and at most Most unless
	// that is 0.
	Least, Most int
	// Shrinks is to how many characters cells are cut at least where the table is wider than the screen; 0 for never.
	Shrinks int
	// Lone cells, of more than a third of the screen, don't widen the column. Texts begin below them.
	Lone bool
}

// TextColumn is the last column, of texts.
type TextColumn struct {
	Head   string
	Least  int // where there is less room, all texts stand below
	Beside int // lines; where a text takes more, all texts stand below; 0 for any number
	// Most bounds the lines of a text, and FewMost those of many texts. 0 is any number: words that are too long stay
	// whole then, since they may be there to be pasted.
	Most, FewMost int
}

// LeastText is the room that a text needs beside its row: what most rows say fits.
const LeastText = 26 // columns

// ShortTexts returns a column of texts of a few lines.
func ShortTexts(head string) TextColumn {
	return TextColumn{
		Head:    head,
		Least:   LeastText,
		Beside:  3,
		Most:    6,
		FewMost: 2,
	}
}

// many is the number of texts from which on each gets FewMost lines.
const many = 10

// Row is a row of a [Table].
type Row struct {
	Cells []Cell
	Text  Cell
	Below []Note
}

// Cell is a field of a table.
type Cell struct {
	Text   string
	Colour Colour
	Fit    func(room int) string // returns the text in an elastic column; nil cuts it
}

// Note is text in lines of their own, below a row.
type Note struct {
	Label  string // before the first line
	Text   string
	Colour Colour
	Paste  bool                  // what follows ": " in a line that is too long gets a line of its own, and isn't broken
	Fit    func(room int) string // returns the text in one line instead
}

// Pairs returns a table of keys and texts.
func Pairs(rows [][2]Cell) Table {
	t := Table{Columns: []Column{{}}, Text: TextColumn{Least: 1}}
	for _, row := range rows {
		t.Rows = append(t.Rows, Row{Cells: row[:1], Text: row[1]})
	}
	return t
}

// Print writes the table. It reports whether a text was cut.
func (t Table) Print(s Screen) (cut bool, err error) {
	text, cut := t.format(s.Width(), s.Paint)
	_, err = io.WriteString(s.Out, text)
	return cut, err
}

// Format returns the table for a screen of that width, and whether a text was cut.
func (t Table) Format(width int) (text string, cut bool) {
	return t.format(width, func(_ Colour, text string) string { return text })
}

const gap = 2 // columns between two columns

// line is a row of a table as it is written.
type line struct {
	cells []Cell
	lone  bool // stands out of the columns: only the first cell is aligned
}

func (t Table) format(width int, paint func(Colour, string) string) (string, bool) {
	lines, cut := t.lay(width)
	widths := widths(lines)
	var b strings.Builder
	for _, l := range lines {
		last := len(l.cells) - 1
		for last >= 0 && l.cells[last].Text == "" {
			last--
		}
		for i, c := range l.cells[:last+1] {
			b.WriteString(paint(c.Colour, c.Text))
			if i == last {
				break
			}
			room := gap
			if i == 0 || !l.lone {
				room += widths[i] - runes(c.Text)
			}
			b.WriteString(strings.Repeat(" ", room))
		}
		b.WriteByte('\n')
	}
	return b.String(), cut
}

// widths returns how wide each column is. A line that stands out widens nothing.
func widths(lines []line) (widths []int) {
	for _, l := range lines {
		if l.lone {
			continue
		}
		for i, c := range l.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], runes(c.Text))
		}
	}
	return widths
}

// left returns how much of a width columns leave.
func left(lines []line, width int) int {
	columns := widths(lines)
	for _, w := range columns {
		width -= w
	}
	return width - gap*(len(columns)-1)
}

// lay fits the table into a width. It reports whether a text was cut.
func (t Table) lay(width int) (lines []line, cut bool) {
	t.hide()
	grid := t.grid(width)
	if t.Narrow != nil && left(grid, width) < 0 {
		return t.Narrow.lay(width)
	}
	for i := range t.Columns {
		t.stretch(grid, i, width)
	}
	for i := range t.Columns {
		cut = t.shrink(grid, i, width) || cut
	}
	texts, beside, cutText := t.texts(left(grid, width)-gap, width)
	if beside && t.Text.Head != "" {
		grid[0].cells = append(grid[0].cells, Cell{Text: t.Text.Head, Colour: Dim})
	}
	if slices.ContainsFunc(grid[0].cells, func(c Cell) bool { return c.Text != "" }) {
		lines = grid[:1:1]
	}
	for i, row := range t.Rows {
		l := grid[i+1]
		head := l.cells
		if len(texts[i]) == 0 || !beside || l.lone {
			lines = append(lines, l)
			head = make([]Cell, len(l.cells))
		}
		for _, text := range texts[i] {
			if beside {
				lines = append(lines, line{cells: append(slices.Clip(head), Cell{Text: text, Colour: row.Text.Colour})})
				head = make([]Cell, len(l.cells))
			} else if text != "" {
				lines = append(lines, t.below(text, row.Text.Colour))
			}
		}
		for _, note := range row.Below {
			for _, text := range note.lines(width - t.Indent) {
				lines = append(lines, t.below(text, note.Colour))
			}
		}
	}
	return lines, cut || cutText
}

// hide leaves out the columns that are hidden.
func (t *Table) hide() {
	t.Columns, t.Rows = slices.Clone(t.Columns), slices.Clone(t.Rows)
	for i := len(t.Columns) - 1; i >= 0; i-- {
		if !t.Columns[i].Hidden {
			continue
		}
		t.Columns = slices.Delete(t.Columns, i, i+1)
		for n, row := range t.Rows {
			t.Rows[n].Cells = slices.Delete(slices.Clone(row.Cells), i, i+1)
		}
	}
}

// grid returns heading and rows, with elastic columns as wide as their least.
func (t Table) grid(width int) []line {
	grid := make([]line, len(t.Rows)+1)
	for _, c := range t.Columns {
		grid[0].cells = append(grid[0].cells, Cell{Text: c.Head, Colour: Dim})
	}
	for n, row := range t.Rows {
		grid[n+1].cells = slices.Clone(row.Cells)
		for i, c := range t.Columns {
			grid[n+1].lone = grid[n+1].lone || c.Lone && runes(row.Cells[i].Text) > width/3
		}
	}
	for i, c := range t.Columns {
		for n := range grid {
			if c.Least > 0 {
				grid[n].cells[i].Text = strings.Repeat(" ", c.Least)
			}
		}
	}
	return grid
}

// stretch gives an elastic column its room.
func (t Table) stretch(grid []line, i, width int) {
	c := t.Columns[i]
	if c.Least == 0 {
		return
	}
	room := max(left(grid, width)+c.Least, c.Least)
	if c.Most > 0 {
		room = min(room, c.Most)
	}
	grid[0].cells[i].Text = c.Head
	for n, row := range t.Rows {
		cell := row.Cells[i]
		if cell.Fit != nil {
			cell.Text = cell.Fit(room)
		}
		grid[n+1].cells[i].Text = Cut(cell.Text, room)
	}
}

// shrink cuts the cells of a column where the table is wider than the screen. It reports whether it did.
func (t Table) shrink(grid []line, i, width int) (cut bool) {
	missing := -left(grid, width)
	if missing <= 0 || t.Columns[i].Shrinks == 0 {
		return false
	}
	room := max(widths(grid)[i]-missing, t.Columns[i].Shrinks)
	for n := range grid {
		cell := &grid[n].cells[i]
		whole := cell.Text
		cell.Text = Cut(whole, room)
		cut = cut || cell.Text != whole
	}
	return cut
}

// texts returns the lines of each row's text, whether they stand beside their rows, which leave that much room, and whether
// one was cut.
func (t Table) texts(room, width int) (texts [][]string, beside, cutAny bool) {
	longest, count, high := 0, 0, false
	for _, row := range t.Rows {
		if row.Text.Text != "" {
			count++
			longest = max(longest, runes(row.Text.Text))
			if t.Text.Beside > 0 {
				_, cut := fill(row.Text.Text, max(room, t.Text.Least), t.Text.Beside)
				high = high || cut
			}
		}
	}
	beside = width >= Unlimited || room >= longest || room >= t.Text.Least && !high
	if !beside {
		room = width - t.Indent
	}
	most := t.Text.Most
	if count > many {
		most = t.Text.FewMost
	}
	for _, row := range t.Rows {
		var lines []string
		switch {
		case row.Text.Text == "":
		case width >= Unlimited:
			for paragraph := range strings.SplitSeq(row.Text.Text, "\n") {
				lines = append(lines, OneLine(paragraph))
			}
		case most == 0:
			lines = Wrap(row.Text.Text, room)
		default:
			var cut bool
			lines, cut = fill(row.Text.Text, room, most)
			cutAny = cutAny || cut
		}
		texts = append(texts, lines)
	}
	return texts, beside, cutAny
}

// below returns a line below a row.
func (t Table) below(text string, c Colour) line {
	return line{cells: []Cell{{Text: strings.Repeat(" ", t.Indent) + text, Colour: c}}, lone: true}
}

// lines breaks a note.
func (n Note) lines(width int) (lines []string) {
	room := width - runes(n.Label)
	switch {
	case n.Fit != nil:
		lines = []string{n.Fit(room)}
	case n.Paste:
		lines = pasteable(n.Text, room)
	default:
		lines = Wrap(n.Text, room)
	}
	for i := range lines {
		if i == 0 {
			lines[i] = n.Label + lines[i]
		} else {
			lines[i] = strings.Repeat(" ", runes(n.Label)) + lines[i]
		}
	}
	return lines
}

// pasteable breaks no line but one that is too long, where the part begins that is to be pasted.
func pasteable(text string, width int) (lines []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if words, paste, ok := strings.Cut(line, ": "); ok && runes(line) > width {
			lines = append(append(lines, Wrap(words+":", width)...), paste)
		} else {
			lines = append(lines, line)
		}
	}
	return lines
}
