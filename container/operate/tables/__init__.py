"""Tables whose rows are of many segments: their files, their rows as windows of columns, and whose each row is."""
