"""The parameters of evaluation, checked before anything is read."""

from dataclasses import dataclass

from components.ncf.errors import InputError

# Model selection, summaries and comparisons speak of the cutoff that the published tables use.
HEADLINE_CUTOFF = 10
# Each user's first so many items of the catalogue are kept.
_LARGEST_CUTOFF = 1_000
# Candidates of the validation item choose the epoch: they are no test of the model.
VALIDATION = "validation"
# The protocol that ranks the whole catalogue, for which no candidates have to be drawn.
CATALOGUE = "loo-full"
PROTOCOLS = ("loo-99", "loo-999-masked", "fixed", CATALOGUE)
# The systems that are ranked: the model first, then what it is held against.
MODEL = "model"
POPULARITY = "popularity"
ALS = "als"
CHAMPION = "champion"


@dataclass(frozen=True)
class EvaluateConfig:
    """Every choice that evaluation makes. Defaults live in the presets, not here.

    Attributes:
        protocols: The protocols to evaluate; empty for all that the examples have candidates for, and the catalogue.
        champion: Another run's `model` folder to rank beside this one; empty for none.
        cutoffs: The k of HR@k and NDCG@k, 10 among them.
        num_bootstrap_samples: Resamplings of the users behind each 95 % interval.
        num_example_users: Users whose history and top ten the report shows.
        seed: Seed of the bootstrap and of the choice of example users.
    """

    protocols: tuple[str, ...]
    champion: str
    cutoffs: tuple[int, ...]
    num_bootstrap_samples: int
    num_example_users: int
    seed: int

    def __post_init__(self) -> None:
        is_in_range = all(1 <= cutoff <= _LARGEST_CUTOFF for cutoff in self.cutoffs)
        if HEADLINE_CUTOFF not in self.cutoffs or not is_in_range or len(set(self.cutoffs)) < len(self.cutoffs):
            raise InputError(
                f"evaluate.cutoffs {list(self.cutoffs)} must be different numbers from 1 to {_LARGEST_CUTOFF}, "
                f"{HEADLINE_CUTOFF} among them."
            )
        if not set(self.protocols) <= set(PROTOCOLS) or len(set(self.protocols)) < len(self.protocols):
            raise InputError(
                f"evaluate.protocols {list(self.protocols)} must be different ones of {', '.join(PROTOCOLS)}, or none "
                "for all that there are candidates for."
            )
        if self.num_bootstrap_samples < 100:
            raise InputError(
                f"evaluate.num_bootstrap_samples is {self.num_bootstrap_samples}: an interval takes at least 100."
            )
        if self.num_example_users < 0:
            raise InputError(f"evaluate.num_example_users is {self.num_example_users}: it must not be negative.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"evaluate.seed {self.seed} is outside [0, 2**63): choose a non-negative number.")
