import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from components.ncf.permutation import shuffled_positions


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5_000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_every_row_has_a_position_of_its_own(num_rows: int, word_0: int, word_1: int) -> None:
    positions = shuffled_positions(np.arange(num_rows, dtype=np.uint32), num_rows, (word_0, word_1))
    assert sorted(positions.tolist()) == list(range(num_rows))


@pytest.mark.parametrize("num_rows", [1 << 17, (1 << 17) + 1, 200_003])
def test_large_sizes_walk_back_into_the_domain(num_rows: int) -> None:
    positions = shuffled_positions(np.arange(num_rows, dtype=np.uint32), num_rows, (3, 4))
    assert np.array_equal(np.sort(positions), np.arange(num_rows))


def test_the_position_depends_on_nothing_but_the_row() -> None:
    rows = np.random.default_rng(0).integers(0, 99_000_000, 100_000).astype(np.uint32)
    together = shuffled_positions(rows, 99_000_000, (1, 2))
    assert np.array_equal(shuffled_positions(rows[::-1], 99_000_000, (1, 2)), together[::-1])
    assert together[7] == shuffled_positions(rows[7:8], 99_000_000, (1, 2))[0]
    # The greatest domain: every 32-bit number is a position.
    greatest = shuffled_positions(np.array([0, 2**32 - 1], np.uint32), 1 << 32, (1, 2))
    assert greatest[0] != greatest[1]


def test_consecutive_rows_land_anywhere_and_independently() -> None:
    num_rows = 99_000_000
    positions = shuffled_positions(np.arange(200_000, dtype=np.uint32), num_rows, (5, 6)).astype(np.float64) / num_rows
    assert stats.kstest(positions, "uniform").pvalue > 1e-3
    for distance in (1, 2, 5, 1_000):
        # The difference of two independent uniform numbers, modulo 1, is uniform.
        differences = (positions[distance:] - positions[:-distance]) % 1
        assert stats.kstest(differences, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(positions[distance:], positions[:-distance])[0, 1]) < 0.01


def test_all_orders_of_four_rows_are_about_as_likely() -> None:
    rng = np.random.default_rng(1)
    rows = np.arange(4, dtype=np.uint32)
    keys = rng.integers(0, 2**32, (12_000, 2))
    orders = [tuple(shuffled_positions(rows, 4, (int(a), int(b))).tolist()) for a, b in keys]
    _, counts = np.unique(np.array(orders), axis=0, return_counts=True)
    # A Feistel network over 2 bits reaches even and odd permutations, not exactly equally often.
    assert len(counts) == 24
    assert counts.min() > 0.5 * counts.mean()


def test_another_key_gives_another_order() -> None:
    rows = np.arange(10_000, dtype=np.uint32)
    orders = [shuffled_positions(rows, 10_000, key) for key in ((1, 2), (1, 3), (2, 2))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(orders[one] == orders[other]) < 0.005
