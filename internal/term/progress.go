package term

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	redrawAfter = 80 * time.Millisecond // bounds how often the screen is drawn
	redrawEvery = time.Second           // while nothing happens, so that the time shown goes on
	widestName  = 48                    // longer names don't push the steps of all others to the right
)

// Progress shows on a terminal what happens to each of several things: those in work below, redrawn in place; those that
// are done above, one line each. Elsewhere it shows nothing.
type Progress struct {
	Screen Screen
	Total  int
	Fold   int // with more things in work, each step has one line; 0 for never

	mu    sync.Mutex
	began time.Time
	work  []*work // oldest first
	width int     // of the widest name so far
	done  int
	lines int // drawn below
	drawn time.Time
	timer *time.Timer // draws what came too soon after the last drawing; nil before the first
	ended bool
}

// work is a thing that is worked on.
type work struct{ name, step string }

// NewProgress returns the progress of so many things, which begins now.
func NewProgress(s Screen, total int) *Progress {
	return &Progress{Screen: s, Total: total, began: time.Now()}
}

// Step shows the step that a thing is in.
func (p *Progress) Step(name, step string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.find(name); i >= 0 {
		p.work[i].step = step
	} else {
		p.work = append(p.work, &work{name, step})
		p.width = max(p.width, min(len(name), widestName))
	}
	p.drawLocked("")
}

// Done takes a thing from those in work. A verdict stays on the screen.
func (p *Progress) Done(name, verdict string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.find(name); i >= 0 {
		p.work = slices.Delete(p.work, i, i+1)
	}
	p.done++
	if verdict != "" {
		verdict = fmt.Sprintf("%-*s  %s\n", p.width, name, verdict)
	}
	p.drawLocked(verdict)
}

// End takes what is in work from the screen, and writes a last line unless that is "". Nothing is drawn after it.
func (p *Progress) End(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.Screen.Terminal || p.ended {
		return
	}
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
	if line != "" {
		line += "\n"
	}
	p.replace(line, nil)
}

// Beneath returns an error in lines below that of its thing, broken between words.
func (p *Progress) Beneath(err error) string {
	const margin = "\n    "
	return margin + strings.Join(Wrap(Text(err), p.Screen.Width()-len(margin)), margin)
}

// Since returns how long ago it began.
func (p *Progress) Since() time.Duration { return time.Since(p.began) }

func (p *Progress) find(name string) int {
	return slices.IndexFunc(p.work, func(w *work) bool { return w.name == name })
}

// drawLocked writes the lines of what is done, which stay, and below them those in work. Without such lines it waits when
// the last drawing was a moment ago; the timer makes up for it.
func (p *Progress) drawLocked(above string) {
	if !p.Screen.Terminal || p.ended {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(redrawEvery, p.tick)
	}
	if wait := redrawAfter - time.Since(p.drawn); above == "" && wait > 0 {
		p.timer.Reset(wait)
		return
	}
	p.drawn = time.Now()
	p.timer.Reset(redrawEvery)
	p.replace(above, p.below())
}

func (p *Progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drawLocked("")
}

// below returns the lines of those in work, as far as there is room, and how far all is.
func (p *Progress) below() (lines []string) {
	width, height := p.Screen.Size()
	room := max(height-4, 1)
	list := p.folded()
	for i, w := range list {
		if i == room {
			lines = append(lines, fmt.Sprintf("… and %d more", len(list)-room))
			break
		}
		lines = append(lines, p.Screen.Paint(Yellow, Cut(fmt.Sprintf("%-*s  %s", p.width, w.name, w.step), width-1)))
	}
	return append(lines, p.Screen.Paint(Dim, fmt.Sprintf("%d of %d done, %s", p.done, p.Total, Span(p.Since()))))
}

// folded returns what is in work, of many things one line for each step.
func (p *Progress) folded() (list []work) {
	many := p.Fold > 0 && len(p.work) > p.Fold
	count := map[string]int{}
	for _, w := range p.work {
		if count[w.step]++; !many || count[w.step] == 1 {
			list = append(list, *w)
		}
	}
	for i := range list {
		if many {
			list[i].name = Count(count[list[i].step], "name")
		}
	}
	return list
}

// replace writes text over what was drawn below, in one go so that nothing flickers.
func (p *Progress) replace(above string, below []string) {
	var b strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", p.lines)
	}
	b.WriteString(above)
	for _, line := range below {
		b.WriteString(line + "\n")
	}
	p.lines = len(below)
	fmt.Fprint(p.Screen.Out, b.String())
}
