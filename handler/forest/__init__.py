"""Models packed flat: a quarter of a booster's memory, a tenth of its time for one row, the same bits in the answer."""
