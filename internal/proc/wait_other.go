//go:build !linux

package proc

// awaitExit is what Linux can do: elsewhere the children may live on until the program is reaped.
func awaitExit(int) {}
