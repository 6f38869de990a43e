package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"autocertd/issuer"
)

// redrawAfter bounds how often the screen is drawn.
const redrawAfter = 80 * time.Millisecond

// progress shows on a terminal what happens to each certificate: those in work below, redrawn in place; those that are
// done above, one line each. Elsewhere it shows nothing, since the log says it.
type progress struct {
	screen screen
	total  int
	began  time.Time

	mu      sync.Mutex
	order   []string // those in work, oldest first
	steps   map[string]string
	issued  map[string]bool
	done    int
	renewed int
	lines   int // drawn below
	drawn   time.Time
}

func newProgress(s screen, total int) *progress {
	return &progress{screen: s, total: total, began: time.Now(), steps: map[string]string{}, issued: map[string]bool{}}
}

func (p *progress) begin(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = append(p.order, name)
	p.steps[name] = "looking"
	p.draw(false)
}

func (p *progress) step(name string, s issuer.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps[name] = stepWords(s)
	if s.Name == issuer.Issued {
		p.issued[name] = true
	}
	p.draw(false)
}

func (p *progress) finish(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, n := range p.order {
		if n == name {
			p.order = append(p.order[:i], p.order[i+1:]...)
			break
		}
	}
	p.done++
	text := p.screen.paint(dim, "nothing is due")
	switch {
	case err != nil:
		text = p.screen.paint(red, "failed") + ": " + strings.ReplaceAll(err.Error(), "\n", "\n    ")
	case p.issued[name]:
		p.renewed++
		text = p.screen.paint(green, "issued and deployed")
	}
	if !p.screen.terminal || p.total > 20 && err == nil && !p.issued[name] {
		p.draw(false)
		return
	}
	p.clear()
	fmt.Fprintf(p.screen.out, "%s  %s\n", name, text)
	p.draw(true)
}

// clear removes what was drawn below.
func (p *progress) clear() {
	if p.lines > 0 {
		fmt.Fprintf(p.screen.out, "\x1b[%dA\x1b[J", p.lines)
		p.lines = 0
	}
}

// draw shows those in work, as far as there is room.
func (p *progress) draw(now bool) {
	if !p.screen.terminal || !now && time.Since(p.drawn) < redrawAfter {
		return
	}
	p.drawn = time.Now()
	p.clear()
	width, height := p.screen.size()
	room := max(height-4, 1)
	var b strings.Builder
	for i, name := range p.order {
		if i == room {
			fmt.Fprintf(&b, "… and %d more\n", len(p.order)-room)
			p.lines++
			break
		}
		line := short(fmt.Sprintf("%s  %s", name, p.steps[name]), width-1)
		b.WriteString(p.screen.paint(yellow, line) + "\n")
		p.lines++
	}
	if p.total > 1 {
		fmt.Fprintf(&b, "%d of %d done\n", p.done, p.total)
		p.lines++
	}
	fmt.Fprint(p.screen.out, b.String())
}

// end says how the pass went.
func (p *progress) end(failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.screen.terminal {
		return
	}
	p.clear()
	text := fmt.Sprintf("%d certificates, %d issued, %d failed, in %s", p.total, p.renewed, failed, time.Since(p.began).Round(10*time.Millisecond))
	c := green
	if failed > 0 {
		c = red
	}
	fmt.Fprintln(p.screen.out, p.screen.paint(c, text))
}
