"""The parameters of the gate, checked before anything is read."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from components.ncf.errors import InputError
from components.ncf.rank_metrics import check_metric


@dataclass(frozen=True)
class GateConfig:
    """The parameters of the step.

    Attributes:
        protocol: The protocol that decides; empty for the first one that was evaluated.
        metric: "hr@K", "recall@K", "ndcg@K" or "mrr".
        margin: By how much more than this the model has to beat the champion.
        min_value: What the model's metric has to be at least.
        must_beat: Systems that the model has to beat, of those that were ranked beside it.
        num_bootstrap_samples: Resamplings of the users behind each interval.
        confidence: What share of resamples an interval covers.
        seed: Of the resampling.

    Raises:
        InputError: A value is out of range.
    """

    protocol: str
    metric: str
    margin: float
    min_value: float
    must_beat: tuple[str, ...]
    num_bootstrap_samples: int
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        check_metric("gate.metric", self.metric)
        for name in ("margin", "min_value"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value < 1.0):
                raise InputError(f"gate.{name} is {value}: it must be a number in [0, 1).")
        if len(set(self.must_beat)) < len(self.must_beat) or "model" in self.must_beat:
            raise InputError(
                f"gate.must_beat {list(self.must_beat)} must name systems beside the model, such as popularity and "
                "als, each once."
            )
        if self.num_bootstrap_samples < 100:
            raise InputError(
                f"gate.num_bootstrap_samples is {self.num_bootstrap_samples}: an interval needs at least 100."
            )
        if not 0.5 <= self.confidence < 1.0:
            raise InputError(f"gate.confidence is {self.confidence}: it must be a number in [0.5, 1).")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"gate.seed {self.seed} is outside [0, 2**63): choose a non-negative number.")

    def as_dict(self) -> dict[str, Any]:
        """Returns the parameters as JSON-serializable values."""
        return {**asdict(self), "must_beat": list(self.must_beat)}


def cutoff_mistake(metric: str, protocol: str, num_candidates: int | None) -> str | None:
    """Returns a sentence where a metric is 1 whatever the model, so that nothing can be decided by it.

    Args:
        metric: Any text; what is no metric at all is not this function's matter.
        protocol: The one that decides, for the sentence.
        num_candidates: The most items that anybody's held-out item is ranked against; None where it is not known.
    """
    name, _, cutoff = metric.partition("@")
    is_rate = name in ("hr", "recall") and cutoff.isdecimal()
    if num_candidates is None or not is_rate or int(cutoff) <= num_candidates:
        return None
    return (
        f"gate.metric {metric} is 1 for every model under {protocol}, which ranks the held-out item among at most "
        f"{num_candidates} others: choose a K of at most {num_candidates}."
    )
