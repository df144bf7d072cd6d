"""`mme publish` and `mme release`: models of all segments judged, approved, made live and taken back together."""
