"""A cluster for the tests of this folder, which run by `make test-distributed` and not with the others."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.cluster import ROOT, FlinkCluster, running_cluster
from tests.distributed.ratings_folder import write_ratings

NUM_USERS, NUM_ITEMS = 6_040, 3_706
SHOWN_LINES = 30


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leaves this folder to runs that name it: it needs a cluster's parts, which `make test-distributed` fetches."""
    return None if any("distributed" in str(argument) for argument in config.invocation_params.args) else True


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[FlinkCluster]:
    parts = Path(os.environ.get("NEUMF_FLINK", ROOT / ".tools" / "flink"))
    if not (parts / ".installed").is_file():
        pytest.fail(f"{parts} has no Flink: run make test-distributed, or tests/distributed/install.py {parts}")
    folder = tmp_path_factory.mktemp("flink")
    with running_cluster(parts, folder) as running:
        yield running
        if request.session.testsfailed:
            for log in sorted(folder.glob("*.log")):
                lines = [line for line in log.read_text(errors="replace").splitlines() if " INFO " not in line]
                print(f"\n== {log}", *lines[-SHOWN_LINES:], sep="\n")  # noqa: T201


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million interactions of as many users and items as ml-1m has, long-tailed, in no order."""
    rng = np.random.default_rng(7)
    popularity = 1 / (np.arange(NUM_ITEMS) + 30)
    popularity /= popularity.sum()
    counts = np.minimum(20 + rng.exponential(146, NUM_USERS).astype(int), 1_500)
    chosen = [rng.choice(NUM_ITEMS, size=count, replace=False, p=popularity) for count in counts]
    users, items = np.repeat(np.arange(NUM_USERS), counts), np.concatenate(chosen)
    order = rng.permutation(len(users))
    timestamps = rng.integers(950_000_000, 1_050_000_000, len(users))
    assert 900_000 < len(users) < 1_100_000
    return write_ratings(tmp_path_factory.mktemp("million") / "ratings", users[order], items[order], timestamps)
