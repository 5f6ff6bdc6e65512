"""How many files each kind of record and table goes to: enough that no writer holds much, whatever the data."""

import numpy as np
from numpy.typing import NDArray

from components.generate.blocks import Catalog
from components.generate.offline_epochs import EpochLayout

# Bound what the writer of a file holds. A row of an offline epoch takes less than a positive that is to be sorted.
MAX_ROWS_PER_FILE = 1 << 20
MAX_ROWS_PER_EPOCH_FILE = 1 << 21
# Likewise for the tables of users, whose files hold consecutive dense indices.
USERS_PER_TABLE_FILE = 1 << 16
# Fewer rows than this in a file make no sense, and leave a chance that another file gets none.
MIN_ROWS_PER_FILE = 64


def num_table_files(catalog: Catalog) -> int:
    """Returns how many files the tables of users go to."""
    return -(-catalog.num_users // USERS_PER_TABLE_FILE)


def table_file_of_users(users: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the file of the tables of users that each dense user is in."""
    return users // np.int32(USERS_PER_TABLE_FILE)


def num_positive_files(catalog: Catalog, num_shards: int) -> int:
    """Returns how many files the positives go to, fewer than `num_shards` when there are hardly any rows."""
    num_rows = catalog.num_train_positives
    return max(1, min(_enough_files(num_rows, num_shards), num_rows // MIN_ROWS_PER_FILE))


def num_evaluation_files(catalog: Catalog, num_shards: int, users_per_prebatch: int) -> int:
    """Returns how many files a protocol's pre-batches go to: at most one for each pre-batch."""
    return min(_enough_files(catalog.counts.rows_kept, num_shards), -(-catalog.num_users // users_per_prebatch))


def epoch_layout(catalog: Catalog, num_negatives: int, prebatch_size: int, num_shards: int) -> EpochLayout:
    """Returns where the rows of an offline epoch go."""
    num_rows = catalog.num_train_positives * (1 + num_negatives)
    return EpochLayout.of(num_rows, prebatch_size, _enough_files(num_rows, num_shards, MAX_ROWS_PER_EPOCH_FILE))


def _enough_files(num_rows: int, num_shards: int, max_rows_per_file: int = MAX_ROWS_PER_FILE) -> int:
    return max(num_shards, -(-num_rows // max_rows_per_file))
