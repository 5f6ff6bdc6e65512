"""The parameters of the recommend step, checked before anything is read."""

from dataclasses import dataclass

from components.ncf.errors import InputError


@dataclass(frozen=True)
class RecommendConfig:
    """The parameters of the step.

    Attributes:
        num_recommendations: Items for each user, fewer where a user has had nearly all.
        users: Raw ids of the users; empty for all. One that the model does not know gets the most popular items.
        num_shards: Files to spread them over.

    Raises:
        InputError: A value is out of range.
    """

    num_recommendations: int
    users: tuple[str, ...]
    num_shards: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_recommendations <= 10_000:
            raise InputError(
                f"recommend.num_recommendations {self.num_recommendations} is out of range: it must be between 1 and "
                "10000."
            )
        if not 1 <= self.num_shards <= 99_999:
            raise InputError(f"recommend.num_shards {self.num_shards} is out of range: it must be between 1 and 99999.")
        repeated = [user for user in set(self.users) if self.users.count(user) > 1]
        if repeated:
            raise InputError(f"recommend.users names {sorted(repeated)[0]!r} more than once: name each user once.")
