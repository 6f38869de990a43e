package config

import "fmt"

// ParseZone returns the zone that a text names, as it would stand in a provider's zones: lower case, in ASCII, without a
// trailing dot.
func ParseZone(text string) (string, error) {
	zone, err := normalZone(text)
	if err != nil {
		return "", fmt.Errorf("zone %q %w", shorten(text), err)
	}
	return zone, nil
}
