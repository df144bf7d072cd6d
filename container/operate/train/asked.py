"""What a training run was asked for, checked: everything its models depend on besides data and live models."""

from __future__ import annotations

from dataclasses import dataclass, field

from container.operate.tables.reading import Reading
from container.operate.train import metrics
from container.operate.train.parameters import Parameters
from container.operate.troubles import Misused


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Reading):
    """One run's question.

    label           the column to be predicted
    weight, group   columns that say a row's weight, and the query that a row of a ranking belongs to
    date            a column whose smallest and largest value go into the release
    features        columns, in the model's order; empty for all that hold numbers and have no other part, and `categories`
    drop            columns that are no features
    categories      columns of words that are features
    holdout         share of a segment's rows that are kept from training and judge its model
    holdout_column  these are the rows where this column is not 0
    has_validation  these are the rows of other files
    metrics         besides the objective's own; the first one given is what candidate and live model are compared by
    min_rows        with fewer to train on a segment fails
    fallback_below  segments with fewer rows, or no better than a constant, get no model, and one over all rows covers them
    """

    label: str
    weight: str | None = None
    group: str | None = None
    date: str | None = None
    features: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    holdout: float = 0.2
    holdout_column: str | None = None
    has_validation: bool = False
    metrics: tuple[str, ...] = ()
    min_rows: int = 20
    fallback_below: int | None = None
    parameters: Parameters = field(default_factory=Parameters)

    @property
    def text_columns(self) -> tuple[str, ...]:
        named = (self.group, self.date)
        fields = () if self.is_from_path else self.fields
        return (*fields, *self.categories, *(name for name in named if name is not None))

    @property
    def other_columns(self) -> frozenset[str]:
        """Those that have another part than being a feature."""
        named = (self.label, self.weight, self.group, self.date, self.holdout_column)
        fields = () if self.is_from_path else self.fields
        return frozenset([*fields, *self.drop, *(name for name in named if name is not None)])

    @property
    def is_ranking(self) -> bool:
        return self.group is not None

    def check(self) -> None:
        """Raises Misused for what does not go together."""
        objectives = self.parameters.objectives
        for objective in objectives:
            metrics.check(self.metrics, objective)
        if any(one.startswith("rank:") != self.is_ranking for one in objectives):
            raise Misused("--group and an objective rank:... go together")
        if self.is_ranking and self.weight is not None:
            raise Misused("--weight: rows of a ranking cannot be weighed, only queries")
        if self.is_ranking and self.fallback_below is not None:
            raise Misused("--fallback-below: no model over all is trained for a ranking")
        ways = [self.has_validation, self.holdout_column is not None]
        if sum(ways) > 1:
            raise Misused("--validation and --holdout-column: which rows judge?")
        if not 0 < self.holdout < 1:
            raise Misused(f"--holdout {self.holdout}: a share between 0 and 1")
        if self.min_rows < 1:
            raise Misused(f"--min-rows {self.min_rows}: a model needs at least one row")
        if self.fallback_below is not None and self.fallback_below < 0:
            raise Misused(f"--fallback-below {self.fallback_below}: no segment has fewer rows than none")
        for flag, names in (("--features", self.features), ("--categories", self.categories)):
            again = [name for at, name in enumerate(names) if name in names[:at]]
            if again:
                raise Misused(f"{flag}: column {again[0]!r} is there twice")
        twice = self.other_columns & {*self.features, *self.categories}
        if twice:
            raise Misused(f"column {sorted(twice)[0]!r} cannot be a feature and something else")
