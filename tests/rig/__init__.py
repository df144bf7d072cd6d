"""What several tests share: endpoints, stores that misbehave, boosters, a browser."""
