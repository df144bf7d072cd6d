"""A running endpoint held against what is live: its answers to golden rows, bit for bit.

Rule: an answer is right when it is the live model's in every bit. What is not right is asked of the models that lay on that
key before, so that an endpoint that has not noticed yet is told from one that answers something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from container.operate.progress import each
from container.operate.release.live import Current, Entry, State, read_history, read_state
from container.operate.release.manifest import Golden
from container.operate.release.place import Place
from container.operate.release.shelf import Manifests
from container.operate.troubles import Refused
from handler.errors import ArtifactMissing, RequestError

RIGHT, OLD, WRONG, FAILED, UNKNOWN = "right", "old", "wrong", "failed", "unknown"
N_BEFORE = 3  # earlier models of a segment that an answer is compared with
N_CALLS_AT_ONCE = 8

# One call of a model with CSV rows: the answer's body as CSV. Raises CallFailed.
Ask = Callable[[str, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """Of one segment.

    kind      right; old: what lay there before answers, of `release`; wrong: neither; failed: `why`; unknown: no golden rows
    release   whose model answered
    since     since when another should
    """

    key: str
    kind: str
    release: str = ""
    since: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Before:
    """A state that was live until `until`."""

    state: State
    until: str


def verify(place: Place, current: Current, state: State, ask: Ask, choice: Callable[[str], bool]) -> tuple[Found, ...]:
    """What each live segment answers. Raises Refused when nothing is live, ArtifactError of the stores."""
    if not state.entries:
        raise Refused(f"nothing is live at {place.location}; mme release approve makes something so")
    verifier = _Verifier(place, current, state, ask)
    keys = [key for key in sorted(state.entries) if choice(key)]
    found = each("asked", verifier.verify_one, keys, len(keys), N_CALLS_AT_ONCE)
    return tuple(sorted(found, key=lambda one: one.key))


def agrees(golden: Golden, answer: bytes) -> bool:
    """Whether an answer in CSV is the golden one, bit for bit, however its lines are broken."""
    import numpy as np

    from handler.payload import decode

    wanted = np.array(golden.scores, np.float32)
    try:
        got = decode(answer, "text/csv", wanted.shape[1]).values
    except RequestError:
        return False
    got = np.ascontiguousarray(got, np.float32).reshape(-1)
    return got.tobytes() == wanted.reshape(-1).tobytes()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A model that may be the one that answers. `found` is what is said when it is."""

    found: Found
    golden: Golden


class _Verifier:
    """Asks for one segment at a time; threads share it."""

    def __init__(self, place: Place, current: Current, state: State, ask: Ask) -> None:
        self._state = state
        self._ask = ask
        self._manifests = Manifests(place.shelf)
        for release in {entry.release for entry in state.entries.values()}:
            self._manifests.get(release)  # before there are threads
        self._before = tuple(_before(place, current, state))
        for one in self._before:
            for release in {entry.release for entry in one.state.entries.values()}:
                self._manifests.get(release)

    def verify_one(self, key: str) -> Found:
        from container.operate.endpoint.calling import CallFailed, EndpointUnreachable

        entry = self._state.entries[key]
        golden = self._golden(key, entry)
        if golden is None:
            return Found(key, UNKNOWN, entry.release, why="no golden rows of it are known")
        live = _Candidate(Found(key, RIGHT, entry.release), golden)
        try:
            if self._is_by(key, live):
                return live.found
            earlier = self._earlier(key, entry)
            # Once more from the last to the first: the endpoint may have noticed between two questions, or be several.
            for one in [*earlier, *reversed(earlier), live] if earlier else []:
                if self._is_by(key, one):
                    return one.found
        except EndpointUnreachable:
            raise
        except CallFailed as error:
            return Found(key, FAILED, why=str(error))
        return Found(key, WRONG, why="the answers are no model's that was live here lately")

    def _earlier(self, key: str, entry: Entry) -> list[_Candidate]:
        """Other models that lay there before, the newest first; those whose golden rows are known."""
        candidates = []
        tried = {entry.digest}
        since = self._before[0].until if self._before else ""
        for one in self._before:
            earlier = one.state.entries.get(key)
            if earlier is None or earlier.digest in tried:
                continue
            if len(tried) == 1:
                since = one.until
            tried.add(earlier.digest)
            golden = self._golden(key, earlier)
            if golden is not None:
                candidates.append(_Candidate(Found(key, OLD, earlier.release, since), golden))
        return candidates

    def _golden(self, key: str, entry: Entry) -> Golden | None:
        manifest = self._manifests.get(entry.release)
        segment = manifest.segments.get(key) if manifest is not None else None
        return segment.golden if segment is not None and segment.digest == entry.digest else None

    def _is_by(self, key: str, candidate: _Candidate) -> bool:
        golden = candidate.golden
        return agrees(golden, self._ask(key, "\n".join(golden.rows).encode()))


def _before(place: Place, current: Current, state: State) -> Iterator[_Before]:
    """The states before this one, as they were live, the newest first."""
    until = current.change.at if current.change is not None else ""
    seen = {state.name}
    for change in read_history(place.shelf, current, 2 * N_BEFORE + 2)[1:]:
        if change.state in seen or not change.state:
            continue
        seen.add(change.state)
        try:
            yield _Before(read_state(place.shelf, change.state), until)
        except ArtifactMissing:
            return
        until = change.at
        if len(seen) > N_BEFORE:
            return
    # What was there before the first change, or was put there by hand, is known by the newest state alone.
    if state.before and state.before not in seen:
        try:
            yield _Before(read_state(place.shelf, state.before), until)
        except ArtifactMissing:
            return
