"""What the supervisor and the runtime speak: with each other, and with Multi Model Server."""
