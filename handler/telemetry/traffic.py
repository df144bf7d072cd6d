"""Which models are busiest, in bounded memory.

Rule: every invocation is attributed exactly once, to a listed model or to `other`; the number of names held never
depends on how many names callers think of.

Each thread counts into its own `Traffic`, exactly, by name. A `TrafficBoard` reads them all: it keeps a decayed score
for at most `MAX_SCORED` names, the least busy leaving first, and lists the top K. A model's listed figures begin at
zero when it enters the list, and what it did before stays in `other`, so no row ever falls: a rate computed from any
row is right, which it would not be if counts moved between rows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import nlargest
from math import exp, log
from operator import itemgetter

OTHER = "other"
# One integer per model holds four sums, so that one addition moves all and a reader never sees half of it:
# microseconds below bit 64, errors from 64, hits from 112, requests from 160.
_ERROR, _HIT, _REQUEST = 1 << 64, 1 << 112, 1 << 160
_STEP = {
    (is_hit, is_error): _REQUEST + _HIT * is_hit + _ERROR * is_error
    for is_hit in (False, True)
    for is_error in (False, True)
}

NAMES_PER_PAGE = 256
MAX_PAGES = 8  # 2,048 names per thread between two readings; what is beyond counts as `other`
MAX_SCORED = 2_048
SCORE_HALF_LIFE_S = 60.0
_TAU_S = SCORE_HALF_LIFE_S / log(2)
LEAD_TO_ENTER = 1.25  # a challenger must be this much busier than the least busy listed model, or rows would flicker


@dataclass(frozen=True, slots=True)
class ModelTraffic:
    """What one row of the board has seen since it was listed.

    listed_at_s  tells two stays on the list apart, as figures begin at zero each time
    """

    model: str
    listed_at_s: float
    requests: int
    hits: int
    errors: int
    total_us: int
    requests_per_s: float


NO_TRAFFIC = ModelTraffic(OTHER, 0.0, 0, 0, 0, 0, 0.0)


class Traffic:
    """One thread's requests by model. Written by that thread alone.

    A page is a dict of at most NAMES_PER_PAGE names. Only the last page is written; when it is full a new one is begun,
    so a reader may drop the ones before it, which are final.
    """

    __slots__ = ("page", "pages", "told")

    def __init__(self) -> None:
        self.page: dict[str, int] = {}
        self.pages = deque([self.page])
        self.told: dict[str, int] = {}  # the reader's: what it has already read of the first page

    def add(self, model: str, is_hit: bool, is_error: bool, total_us: int) -> None:
        step = _STEP[is_hit, is_error] + total_us
        try:
            self.page[model] += step
        except KeyError:
            self._meet(model, step)

    def take(self) -> dict[str, int]:
        """What was added since the last call, by name. For the one reader, on another thread."""
        pages = list(self.pages)
        if pages[0] == self.told and len(pages) == 1:  # most threads, most of the time
            return {}
        moved: dict[str, int] = {}
        for page in pages:
            now = page.copy()  # one step under the interpreter lock, so it is never read half changed
            for model, cell in now.items():
                if step := cell - self.told.get(model, 0):
                    moved[model] = moved.get(model, 0) + step
            self.told = {} if page is not pages[-1] else now
        for _ in pages[:-1]:
            self.pages.popleft()
        return moved

    def _meet(self, model: str, step: int) -> None:
        if len(self.page) >= NAMES_PER_PAGE:
            if len(self.pages) >= MAX_PAGES:
                model = OTHER
            else:
                self.page = {}
                self.pages.append(self.page)
        self.page[model] = self.page.get(model, 0) + step


class TrafficBoard:
    """The busiest models over all threads. Not thread-safe: its owner holds one lock around every call."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._moved: dict[str, int] = {}  # read from the threads, not yet attributed
        self._scores: dict[str, float] = {}
        self._listed: dict[str, int] = {}
        self._listed_at_s: dict[str, float] = {}
        self._other = 0
        self._departed = 0
        self._began_s: float | None = None
        self._settled_s = 0.0

    def take(self, traffic: Traffic) -> None:
        """Read what one thread has added."""
        for model, step in traffic.take().items():
            self._moved[model] = self._moved.get(model, 0) + step

    def settle(self, now_s: float) -> None:
        """Attribute what was taken: decay the scores, choose who is listed, then book every step once."""
        if self._began_s is None:
            self._began_s = self._settled_s = now_s
        decay = exp(-max(0.0, now_s - self._settled_s) / _TAU_S)
        self._settled_s = max(self._settled_s, now_s)
        scores = {model: score * decay for model, score in self._scores.items()}
        for model, step in self._moved.items():
            if model != OTHER:
                scores[model] = scores.get(model, 0.0) + step // _REQUEST
        if len(scores) > MAX_SCORED:
            scores = dict(nlargest(MAX_SCORED, scores.items(), key=itemgetter(1)))
        self._scores = scores
        self._list_the_busiest()
        for model, step in self._moved.items():
            if model in self._listed:
                self._listed[model] += step
            else:
                self._other += step
        self._moved = {}

    def rows(self) -> tuple[ModelTraffic, ...]:
        """The listed models, the busiest first, and `other` as the last row."""
        elapsed_s = self._settled_s - (self._began_s or 0.0)
        # A young board has not seen a whole window yet; under a second nothing can be said about a rate.
        window_s = max(1.0, _TAU_S * (1 - exp(-elapsed_s / _TAU_S)))
        rows = [
            _row(model, self._listed_at_s[model], cell, self._scores.get(model, 0.0) / window_s)
            for model, cell in self._listed.items()
        ]
        rows.sort(key=lambda row: (-row.requests_per_s, row.model))
        unlisted = sum(score for model, score in self._scores.items() if model not in self._listed)
        return (*rows, _row(OTHER, 0.0, self._other, unlisted / window_s))

    def total(self) -> ModelTraffic:
        """All traffic ever taken: the rows of now, and of models that have since left the list."""
        return _row(OTHER, 0.0, sum(self._listed.values()) + self._other + self._departed, 0.0)

    def _list_the_busiest(self) -> None:
        busiest = nlargest(self._top, self._scores.items(), key=itemgetter(1))
        for model, score in busiest:
            if model in self._listed:
                continue
            if len(self._listed) >= self._top:
                idlest = min(self._listed, key=lambda name: self._scores.get(name, 0.0))
                if score < self._scores.get(idlest, 0.0) * LEAD_TO_ENTER:
                    break
                self._departed += self._listed.pop(idlest)
                del self._listed_at_s[idlest]
            self._listed[model] = 0
            self._listed_at_s[model] = self._settled_s


def _row(model: str, listed_at_s: float, cell: int, requests_per_s: float) -> ModelTraffic:
    return ModelTraffic(
        model,
        listed_at_s,
        requests=cell >> 160,
        hits=cell >> 112 & 0xFFFF_FFFF_FFFF,
        errors=cell >> 64 & 0xFFFF_FFFF_FFFF,
        total_us=cell & 0xFFFF_FFFF_FFFF_FFFF,
        requests_per_s=requests_per_s,
    )
