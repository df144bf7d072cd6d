"""Notes between the supervisor and the runtime."""

from __future__ import annotations

from container.link.channel import Channel


def test_the_last_words_of_an_end_that_read_nothing_more_are_heard() -> None:
    ours, theirs = Channel.pair()
    ours.send("listen", "a")
    ours.send("listen", "b")
    other = Channel(theirs)
    assert other.receive() is not None
    other.send("refused", "why")
    other.close()  # with a note of ours unread, which the kernel tells us as a reset
    note = ours.receive()
    assert note is not None
    assert (note.what, note.value) == ("refused", "why")
    assert ours.receive() is None
    ours.close()
