"""Models in memory: loaded once, counted to the byte, evicted least recently used first."""
