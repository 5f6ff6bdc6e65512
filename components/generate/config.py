"""The parameters of the generate step, checked before anything is read."""

import math
from dataclasses import dataclass

from components.generate.protocols import FIXED_NAME, SAMPLED_PROTOCOLS
from components.generate.runner_options import check_runner_options
from components.ncf.errors import InputError

# One item each to train on, to validate with and to test with.
_MIN_MIN_RATINGS = 3
# A user of loo-999-masked takes this many rows, and an Example holds whole users.
PREBATCH_MULTIPLE = 1_000


@dataclass(frozen=True)
class GenerateConfig:
    """The parameters of the step.

    Attributes:
        min_ratings: Users with fewer distinct items are dropped; at least 3.
        protocols: The evaluation protocols to draw candidates for, of "loo-99" and "loo-999-masked". "fixed" is
            written whenever the data set gives candidates; naming it demands that it does.
        num_shards: Files that the training positives, each protocol's candidates and each offline epoch are spread
            over: fewer when there is too little to spread, more when files would get too large.
        eval_prebatch_size: Rows of an evaluation Example, a multiple of 1,000.
        offline_epochs: Training epochs to write with their negatives, for trainers that do not draw their own.
        num_offline_negatives: Negatives of each positive in them.
        train_prebatch_size: Rows of an Example of them.
        beam_runner: "in_memory", "flink" or "dataflow".
        beam_options: Texts "name=value", the options of that runner.
        seed: Seed of every draw, in [0, 2**63).

    Raises:
        InputError: A value is out of range.
    """

    min_ratings: int
    protocols: tuple[str, ...]
    num_shards: int
    eval_prebatch_size: int
    offline_epochs: int
    num_offline_negatives: int
    train_prebatch_size: int
    beam_runner: str
    beam_options: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if self.min_ratings < _MIN_MIN_RATINGS:
            raise InputError(
                f"generate.min_ratings {self.min_ratings} is too small: it must be at least {_MIN_MIN_RATINGS}, one "
                "item each to train on, to validate with and to test with."
            )
        known = (*SAMPLED_PROTOCOLS, FIXED_NAME)
        for name in self.protocols:
            if name not in known:
                raise InputError(f"generate.protocols names {name!r}, which is not one of {', '.join(known)}.")
        if not self.protocols or len(set(self.protocols)) < len(self.protocols):
            raise InputError(
                f"generate.protocols is {list(self.protocols)}: name one or more of {', '.join(known)}, each once."
            )
        if not 1 <= self.num_shards <= 99_999:
            raise InputError(f"generate.num_shards {self.num_shards} is out of range: it must be between 1 and 99999.")
        if self.eval_prebatch_size < 1 or self.eval_prebatch_size % PREBATCH_MULTIPLE:
            nearest = max(1, math.floor(self.eval_prebatch_size / PREBATCH_MULTIPLE + 0.5)) * PREBATCH_MULTIPLE
            raise InputError(
                f"generate.eval_prebatch_size {self.eval_prebatch_size} is not a multiple of {PREBATCH_MULTIPLE}: the "
                f"nearest one is {nearest}."
            )
        for name, value, least, most in (
            ("offline_epochs", self.offline_epochs, 0, 10_000),
            ("num_offline_negatives", self.num_offline_negatives, 1, 1_000),
            ("train_prebatch_size", self.train_prebatch_size, 1, 1 << 24),
        ):
            if not least <= value <= most:
                raise InputError(f"generate.{name} {value} is out of range: it must be between {least} and {most}.")
        check_runner_options(self.beam_runner, self.beam_options)
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"generate.seed {self.seed} is out of range: it must be between 0 and 2**63 - 1.")
