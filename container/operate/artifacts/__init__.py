"""Commands about single archives: `mme inspect`, `mme convert`."""
