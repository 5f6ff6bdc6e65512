"""The parameters of the download step."""

import re
from dataclasses import dataclass

from components.download.catalog import SourceKind, parse_dataset, parse_synthetic_options
from components.download.header import parse_column_mapping
from components.ncf.errors import InputError


@dataclass(frozen=True)
class DownloadConfig:
    """The parameters of the step.

    Attributes:
        dataset: A name of the catalogue, `synthetic:<options>`, `csv:<uri>` or `ncf:<uri prefix>`.
        mirror: Where MovieLens archives are instead of the official host: an `https://`, `gs://` or `file://` folder,
            or empty.
        titles: For `csv:` only: a second CSV file with the items' titles, or empty.
        columns: For `csv:` only: column names by role, as in `user=customer,item=sku`, or empty.
        max_rejected_fraction: The largest share of a file's lines that may be bad and left out, in [0, 1].
        data_digest: The md5 that the archive or CSV must have, 32 hexadecimal digits, or empty.
        seed: What `synthetic` is generated from, in [0, 2**64).
    """

    dataset: str
    mirror: str
    titles: str
    columns: str
    max_rejected_fraction: float
    data_digest: str
    seed: int

    def __post_init__(self) -> None:
        kind = parse_dataset(self.dataset).kind
        if kind is SourceKind.SYNTHETIC:
            parse_synthetic_options(parse_dataset(self.dataset).argument)
        if self.mirror and kind is not SourceKind.MOVIELENS:
            raise InputError(
                f"--mirror {self.mirror} is of no use to {self.dataset}: leave it out, or name a MovieLens set."
            )
        for name, value in (("titles", self.titles), ("columns", self.columns)):
            if value and kind is not SourceKind.CSV:
                raise InputError(
                    f"download.{name} {value!r} is of no use to {self.dataset}: it describes csv: data sets."
                )
        if not self.titles and {"title", "genres"} & parse_column_mapping(self.columns).keys():
            raise InputError(
                f"download.columns {self.columns!r} names columns of a titles file: set download.titles too."
            )
        if self.data_digest and not re.fullmatch("[0-9a-f]{32}", self.data_digest):
            raise InputError(f"download.data_digest {self.data_digest!r} must be an md5, 32 digits of 0-9 and a-f.")
        if self.data_digest and kind not in (SourceKind.MOVIELENS, SourceKind.CSV):
            raise InputError(f"download.data_digest is of no use to {self.dataset}: it is of one archive or CSV.")
        if not 0 <= self.max_rejected_fraction <= 1:
            raise InputError(f"download.max_rejected_fraction is {self.max_rejected_fraction}: choose 0 to 1.")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"download.seed is {self.seed}: choose 0 to 2**64 - 1.")
