"""Start, watch and stop the JVM and the runtime."""
