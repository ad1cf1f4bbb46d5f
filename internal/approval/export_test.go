package approval

// Known tells how many requests the broker knows.
func Known(b *Broker) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}
