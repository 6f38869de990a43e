package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"autocertd/internal/lifecycle"
	"autocertd/issuer"
)

const (
	redrawAfter = 80 * time.Millisecond // bounds how often the screen is drawn
	redrawEvery = time.Second           // while nothing happens, so that the time shown goes on
	widestName  = 48                    // longer names don't push the steps of all others to the right
)

// progress shows on a terminal what happens to each certificate: those in work below, redrawn in place; those that are
// done above, one line each. Elsewhere it shows nothing, since the log says it.
type progress struct {
	screen screen
	total  int
	// success is what is said of a certificate that was issued.
	success string
	began   time.Time

	mu         sync.Mutex
	work       []*work // oldest first
	width      int     // of the widest name so far
	done       int
	issued     int
	undeployed int // of those that were issued
	lines      int // drawn below
	drawn      time.Time
	timer      *time.Timer // draws what came too soon after the last drawing; nil before the first
	ended      bool
}

// work is a certificate that is worked on.
type work struct {
	name   string
	step   string
	issued bool
}

func newProgress(s screen, total int) *progress {
	return &progress{screen: s, total: total, success: "issued and deployed", began: time.Now()}
}

func (p *progress) begin(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work = append(p.work, &work{name: name, step: "looking"})
	p.width = max(p.width, min(len(name), widestName))
	p.draw("")
}

func (p *progress) step(name string, s issuer.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.find(name); i >= 0 {
		p.work[i].step = stepWords(s)
		p.work[i].issued = p.work[i].issued || s.Name == issuer.Issued
	}
	p.draw("")
}

func (p *progress) finish(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var issued bool
	if i := p.find(name); i >= 0 {
		issued = p.work[i].issued
		p.work = slices.Delete(p.work, i, i+1)
	}
	p.done++
	text := p.screen.paint(dim, "nothing is due")
	switch {
	case errors.Is(err, context.Canceled):
		text = p.screen.paint(yellow, "interrupted")
	case lifecycle.Waits(err):
		text = p.screen.paint(yellow, "waits") + p.beneath(err)
	case err != nil && issued:
		p.issued++
		p.undeployed++
		text = p.screen.paint(red, "issued, but not deployed") + p.beneath(err)
	case err != nil:
		text = p.screen.paint(red, "failed") + p.beneath(err)
	case issued:
		p.issued++
		text = p.screen.paint(green, p.success)
	case p.total > 20: // too many to say that nothing happened
		p.draw("")
		return
	}
	p.draw(fmt.Sprintf("%-*s  %s\n", p.width, name, text))
}

// beneath is an error in lines below the certificate's, broken between words.
func (p *progress) beneath(err error) string {
	const margin = "\n    "
	return margin + strings.Join(wrap(errorText(err), p.screen.width()-len(margin)), margin)
}

func (p *progress) find(name string) int {
	return slices.IndexFunc(p.work, func(w *work) bool { return w.name == name })
}

// draw writes the lines of what is done, which stay, and below them those in work. Without such lines it waits when the
// last drawing was a moment ago; the timer makes up for it.
func (p *progress) draw(above string) {
	if !p.screen.terminal || p.ended {
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

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw("")
}

// below returns the lines of those in work, as far as there is room, and how far all is.
func (p *progress) below() (lines []string) {
	width, height := p.screen.size()
	room := max(height-4, 1)
	for i, w := range p.work {
		if i == room {
			lines = append(lines, fmt.Sprintf("… and %d more", len(p.work)-room))
			break
		}
		lines = append(lines, p.screen.paint(yellow, cut(fmt.Sprintf("%-*s  %s", p.width, w.name, w.step), width-1)))
	}
	return append(lines, p.screen.paint(dim, fmt.Sprintf("%d of %d done, %s", p.done, p.total, span(time.Since(p.began)))))
}

// replace writes text over what was drawn below, in one go so that nothing flickers.
func (p *progress) replace(above string, below []string) {
	var b strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", p.lines)
	}
	b.WriteString(above)
	for _, line := range below {
		b.WriteString(line + "\n")
	}
	p.lines = len(below)
	fmt.Fprint(p.screen.out, b.String())
}

// end says how the pass went. Nothing is drawn after it.
func (p *progress) end(failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.screen.terminal || p.ended {
		return
	}
	p.ended = true
	if p.timer != nil {
		p.timer.Stop()
	}
	text := fmt.Sprintf("%d %s in %s: %d issued", p.total, plural(p.total, "certificate"),
		time.Since(p.began).Round(10*time.Millisecond), p.issued)
	if p.undeployed > 0 {
		text += fmt.Sprintf(", %d of them not deployed", p.undeployed)
	}
	if idle := p.done - p.issued - failed + p.undeployed; idle > 0 {
		text += fmt.Sprintf(", %d not due", idle)
	}
	c := green
	if failed > 0 {
		c = red
	}
	if others := failed - p.undeployed; others > 0 {
		text += fmt.Sprintf(", %d failed", others)
	}
	p.replace(p.screen.paint(c, text)+"\n", nil)
}
