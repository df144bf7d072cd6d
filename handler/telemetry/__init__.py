"""What is measured, and the recorder that measures it."""
