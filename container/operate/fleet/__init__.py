"""`mme fleet`: several endpoints that share the models between them instead of each holding all."""
