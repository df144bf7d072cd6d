"""How the processes live: launch, sockets, settings, metric sinks, operator commands."""
