"""The mme command."""
