"""The endpoint's own code in the place of ours."""
