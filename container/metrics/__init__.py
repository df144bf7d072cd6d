"""Recorded facts on their way out: EMF, CloudWatch, Prometheus, status page."""
