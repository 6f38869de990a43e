// Package suggest finds the known word that an unknown one is probably a slip of.
package suggest

import (
	"fmt"
	"strings"
)

// DidYouMean returns a question with the known word that is nearest to an unknown one; "" when none is near.
func DidYouMean(unknown string, known []string) string {
	if near := Nearest(unknown, known); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return ""
}

// Nearest returns the known word that an unknown one is probably a slip of, "" when there is none.
func Nearest(unknown string, known []string) string {
	best, distance := "", (len(unknown)+2)/3+1 // about one slip in three letters
	for _, name := range known {
		if n := Distance(strings.ToLower(unknown), name); n < distance {
			best, distance = name, n
		}
	}
	return best
}

// Distance returns the number of letters to insert, drop, replace or swap with their neighbour. Long words are no typing
// mistakes, and are as far from each other as their length says.
func Distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return max(len(a), len(b))
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
