"""The runtime: one process that holds every model and answers MMS."""
