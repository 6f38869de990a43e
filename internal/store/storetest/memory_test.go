package storetest

import "testing"

func TestMemory(t *testing.T) {
	var m *Memory
	Run(t, Backend{
		New:   func(*testing.T) string { m = &Memory{}; return "" },
		Open:  func(string) (Storage, error) { return m, nil },
		Lose:  func(_, name string) error { m.Lose(name); return nil },
		Alone: true,
	})
}
