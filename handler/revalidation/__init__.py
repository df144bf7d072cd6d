"""Models in memory kept as new as their artifacts, behind the calls (stale-while-revalidate, RFC 5861)."""
