"""The data sets that can be named: what they are, where they come from and how their files are laid out."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from components.ncf.errors import InputError

OFFICIAL_HOST = "https://files.grouplens.org/datasets/movielens"

# What every user of the synthetic data set has at least, and what the protocol loo-99 draws for each.
MIN_INTERACTIONS = 20
NUM_EVAL_NEGATIVES = 99

_CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
)
_RESEARCH_ONLY = "GroupLens usage licence: research use with acknowledgement, no redistribution, no commercial use"
_REDISTRIBUTABLE = (
    "GroupLens usage licence: research use with acknowledgement, redistribution under the same terms, no commercial use"
)


class Layout(StrEnum):
    """How an archive writes its ratings and its titles."""

    U_DATA = "u.data"  # tab-separated ratings, `|`-separated titles with one flag per genre
    DOUBLE_COLON = "::"  # user::item::rating::timestamp and item::title::genres
    CSV = "csv"  # comma-separated with a header, titles quoted where needed


@dataclass(frozen=True)
class Archive:
    """A zip file of the MovieLens family.

    Attributes:
        folder: The folder inside the zip file.
        layout: How its files are written.
        encoding: Of the titles.
        rating_range: Smallest and largest rating that the data set's README allows.
        published_md5: As published beside the archive on the official host; empty where none is stable.
    """

    folder: str
    layout: Layout
    encoding: str
    rating_range: tuple[float, float]
    published_md5: str

    @property
    def ratings_member(self) -> str:
        """The ratings file's name inside the zip file."""
        names = {Layout.U_DATA: "u.data", Layout.DOUBLE_COLON: "ratings.dat", Layout.CSV: "ratings.csv"}
        return f"{self.folder}/{names[self.layout]}"

    @property
    def titles_member(self) -> str:
        """The titles file's name inside the zip file."""
        names = {Layout.U_DATA: "u.item", Layout.DOUBLE_COLON: "movies.dat", Layout.CSV: "movies.csv"}
        return f"{self.folder}/{names[self.layout]}"


@dataclass(frozen=True)
class Dataset:
    """One entry of the catalogue.

    Attributes:
        name: What the user types.
        description: One line.
        num_interactions: Ratings in the data set.
        num_users: Users with at least one rating.
        num_items: Items with at least one rating.
        licence: Its terms of use in one line.
        citation: What a publication cites; empty if nothing.
        archive: Where its files are; None for generated data.
    """

    name: str
    description: str
    num_interactions: int
    num_users: int
    num_items: int
    licence: str
    citation: str
    archive: Archive | None


_SYNTHETIC = Dataset(
    name="synthetic",
    description="generated from known latent factors, needs no network; its best reachable HR@10 is known",
    num_interactions=100_344,
    num_users=1_500,
    num_items=800,
    licence="generated data, free of anybody's rights",
    citation="",
    archive=None,
)


def _movielens(
    name: str, year: str, counts: tuple[int, int, int], archive: Archive, licence: str = _RESEARCH_ONLY
) -> Dataset:
    num_interactions, num_users, num_items = counts
    low, high = archive.rating_range
    return Dataset(
        name=name,
        description=f"MovieLens, {year}; ratings from {low:g} to {high:g}",
        num_interactions=num_interactions,
        num_users=num_users,
        num_items=num_items,
        licence=licence,
        citation=_CITATION,
        archive=archive,
    )


# Interactions, users and RATED items, from the READMEs and counted in the files (the READMEs count unrated movies too).
# ml-latest-small is a development set that GroupLens replaces from time to time: no md5 of it is stable.
_MOVIELENS = (
    _movielens(
        "ml-100k",
        "1998",
        (100_000, 943, 1_682),
        Archive("ml-100k", Layout.U_DATA, "latin-1", (1, 5), "0e33842e24a9c977be4e0107933c0723"),
    ),
    _movielens(
        "ml-latest-small",
        "2018",
        (100_836, 610, 9_724),
        Archive("ml-latest-small", Layout.CSV, "utf-8", (0.5, 5), ""),
        licence=_REDISTRIBUTABLE,
    ),
    _movielens(
        "ml-1m",
        "2003",
        (1_000_209, 6_040, 3_706),
        Archive("ml-1m", Layout.DOUBLE_COLON, "latin-1", (1, 5), "c4d9eecfca2ab87c1945afe126590906"),
    ),
    _movielens(
        "ml-10m",
        "2009",
        (10_000_054, 69_878, 10_677),
        Archive("ml-10M100K", Layout.DOUBLE_COLON, "utf-8", (0.5, 5), "ce571fd55effeba0271552578f2648bd"),
    ),
    _movielens(
        "ml-20m",
        "2015",
        (20_000_263, 138_493, 26_744),
        Archive("ml-20m", Layout.CSV, "utf-8", (0.5, 5), "cd245b17a1ae2cc31bb14903e1204af3"),
    ),
    _movielens(
        "ml-25m",
        "2019",
        (25_000_095, 162_541, 59_047),
        Archive("ml-25m", Layout.CSV, "utf-8", (0.5, 5), "6b51fb2759a8657d3bfcbfc42b592ada"),
    ),
    _movielens(
        "ml-32m",
        "2023",
        (32_000_204, 200_948, 84_432),
        Archive("ml-32m", Layout.CSV, "utf-8", (0.5, 5), "d472be332d4daa821edc399621853b57"),
    ),
)

CATALOG: Mapping[str, Dataset] = MappingProxyType({entry.name: entry for entry in (_SYNTHETIC, *_MOVIELENS)})

# What takes an argument after a colon, for help texts and error messages.
USER_DATA_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "csv:<uri>": "your own events: user, item and optionally rating and timestamp columns",
        "ncf:<uri prefix>": "the split files of the NCF paper: .train.rating, .test.rating, .test.negative",
    }
)


class SourceKind(StrEnum):
    """Which code reads a data set."""

    MOVIELENS = "movielens"
    CSV = "csv"
    NCF = "ncf"
    SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Source:
    """A parsed `dataset` parameter.

    Attributes:
        kind: Which code reads it.
        argument: A catalogue name, a URI, a URI prefix, or the options of `synthetic`.
    """

    kind: SourceKind
    argument: str


@dataclass(frozen=True)
class SyntheticSize:
    """How large a generated data set is.

    Attributes:
        num_users: Users, each with at least MIN_INTERACTIONS interactions.
        num_items: Items that can be drawn.
    """

    num_users: int
    num_items: int

    def __post_init__(self) -> None:
        if not 2 <= self.num_users <= 10_000_000:
            raise InputError(f"synthetic: num_users is {self.num_users}: choose 2 to 10,000,000.")
        smallest = 2 * MIN_INTERACTIONS + NUM_EVAL_NEGATIVES + 1
        if not smallest <= self.num_items <= 10_000_000:
            raise InputError(
                f"synthetic: num_items is {self.num_items}: choose {smallest} to 10,000,000, so that every user leaves "
                f"{NUM_EVAL_NEGATIVES} items unseen."
            )


def parse_synthetic_options(options: str) -> SyntheticSize:
    """Reads what follows `synthetic:`, for example `num_users=500,num_items=300`; what is not given stays as it is.

    Raises:
        InputError: An option is unknown, or is not a whole number that fits.
    """
    sizes = {"num_users": CATALOG["synthetic"].num_users, "num_items": CATALOG["synthetic"].num_items}
    for part in options.split(",") if options else ():
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in sizes or not (value.isascii() and value.isdigit()):
            raise InputError(
                f"dataset synthetic has no option {part!r}: write for example synthetic:num_users=500,num_items=300."
            )
        sizes[name] = int(value)
    return SyntheticSize(**sizes)


def dataset_names() -> tuple[str, ...]:
    """Returns every name that the `dataset` parameter takes, the forms with a URI last."""
    return (*CATALOG, *USER_DATA_FORMS)


def parse_dataset(dataset: str) -> Source:
    """Reads the `dataset` parameter.

    Args:
        dataset: A catalogue name, `synthetic:<options>`, `csv:<uri>` or `ncf:<uri prefix>`.

    Raises:
        InputError: It is none of these; the text gives the nearest names and the whole list.
    """
    head, colon, argument = dataset.partition(":")
    if head == "synthetic":
        return Source(SourceKind.SYNTHETIC, argument)
    if dataset in CATALOG:
        return Source(SourceKind.MOVIELENS, dataset)
    if colon and head in ("csv", "ncf"):
        if not argument or (argument.startswith("gs://") and not re.fullmatch("gs://[^/]+/.+", argument)):
            raise InputError(
                f"dataset {dataset!r} names no file: write {head}:<path, or file://, https:// or gs:// URI>."
            )
        return Source(SourceKind(head), argument)
    raise InputError(_unknown_dataset(dataset))


def _unknown_dataset(dataset: str) -> str:
    known = f"the known data sets are {', '.join(dataset_names())}"
    nearest = difflib.get_close_matches(_comparable(dataset), [_comparable(name) for name in CATALOG], n=3, cutoff=0.6)
    originals = {_comparable(name): name for name in CATALOG}
    if nearest:
        return f"Unknown dataset {dataset!r}: did you mean {' or '.join(originals[name] for name in nearest)}? {known}."
    return f"Unknown dataset {dataset!r}: {known}."


def _comparable(name: str) -> str:
    # "movielens-1m", "ML_1M" and "ml1m" are all near "ml-1m".
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("movielens", "ml"))
