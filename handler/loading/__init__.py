"""From a target to a model ready to score, and what spares the store and the memory on that way."""
