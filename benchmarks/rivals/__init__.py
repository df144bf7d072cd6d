"""What the figures are compared with, written as their users would write it."""
