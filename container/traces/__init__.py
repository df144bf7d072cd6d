"""Calls as spans, for those who have a collector of OpenTelemetry's."""
