"""Model packages and their groups, and the events that a change of one sends.

Rule: a package's approval is changed by who says so, and by nothing else. moto's forgets it with any other update, so this
book-keeping is our own.
"""
