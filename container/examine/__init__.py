"""Where artifacts nobody has looked into yet are opened, so that they can do no harm."""
