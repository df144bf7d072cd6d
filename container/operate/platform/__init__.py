"""`mme platform`."""
