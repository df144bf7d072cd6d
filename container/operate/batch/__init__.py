"""`mme score`: rows of all segments scored where they lie, by the endpoint's own models and code, without HTTP."""
