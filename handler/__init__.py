"""What a request means: from a target and a body to an answer. Values in, values out."""
