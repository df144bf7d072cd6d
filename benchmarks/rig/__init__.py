"""What several benchmarks share: servers, loads, segments, figures and verdicts."""
