"""Commands about a running endpoint: `mme invoke`, `mme models`, `mme health`, `mme dashboard`."""
