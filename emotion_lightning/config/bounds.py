"""The range of a number."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """The range of a number, as the annotation of a field; `schema.load_settings` checks it."""

    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allows(self, value: float) -> bool:
        """Whether a value is in the range; infinities, NaN and integers beyond ±2**63 never are."""
        return (
            (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value))
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {name: limit for name, limit in dataclasses.asdict(self).items() if limit is not None}
        return " and ".join([f"{name.replace('_', ' ')} {limit:g}" for name, limit in limits.items()] + ["finite"])
