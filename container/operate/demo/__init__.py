"""`mme demo`: house prices of ten cities, from training to a call."""
