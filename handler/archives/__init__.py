"""Archives and bundles, read from bytes that are already here: which booster files are in them."""
