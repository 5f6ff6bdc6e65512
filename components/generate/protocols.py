"""The evaluation protocols that have candidate files, as generate writes them."""

from dataclasses import dataclass

from components.ncf.counter_random import Stream


@dataclass(frozen=True)
class Protocol:
    """How one protocol's candidates are chosen and where they go.

    Attributes:
        name: As in the manifest, and the beginning of the file names.
        folder: The folder of its files. Only `eval/` is read by the TensorFlow official models' trainer.
        num_candidates: Items that the held-out one is ranked against.
        stream: The random stream they are drawn from; None when they are given.
        is_distinct: Whether they are drawn without replacement.
        holds_out: "test" or "validation", the item that is ranked.
    """

    name: str
    folder: str
    num_candidates: int
    stream: Stream | None
    is_distinct: bool
    holds_out: str

    @property
    def rows_per_user(self) -> int:
        """The candidates and the held-out item."""
        return self.num_candidates + 1

    def users_per_prebatch(self, eval_prebatch_size: int) -> int:
        """Returns how many whole users fit into one Example (at least one)."""
        return max(1, eval_prebatch_size // self.rows_per_user)


VALIDATION = Protocol("validation", "validation", 99, Stream.VALIDATION, True, "validation")

SAMPLED_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("loo-99", "eval_loo-99", 99, Stream.LOO_99, True, "test"),
        Protocol("loo-999-masked", "eval", 999, Stream.LOO_999_MASKED, False, "test"),
    )
}

FIXED_NAME = "fixed"


def fixed_protocol(num_candidates: int) -> Protocol:
    """Returns the protocol whose candidates come with the data set."""
    return Protocol(FIXED_NAME, "eval_fixed", num_candidates, None, False, "test")
