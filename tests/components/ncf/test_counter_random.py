import numpy as np
import pytest
from scipy import stats

from components.ncf.counter_random import Stream, derive_key, threefry2x32, uniform_integers


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
    ids=["zeros", "ones", "digits_of_pi"],
)
def test_known_answers_of_random123(key: tuple[int, int], counter: tuple[int, int], expected: tuple[int, int]) -> None:
    assert tuple(int(word) for word in threefry2x32(key, counter)) == expected
    # The same in the middle of an array, where nothing may leak from one lane to the next.
    columns = [np.array([7, word, 9], np.uint32) for word in (*key, *counter)]
    words = threefry2x32((columns[0], columns[1]), (columns[2], columns[3]))
    assert tuple(int(word[1]) for word in words) == expected


def test_a_draw_depends_on_its_counter_alone() -> None:
    users, draws = np.arange(50, dtype=np.uint32)[:, None], np.arange(20, dtype=np.uint32)
    together = threefry2x32((1, 2), (users, draws))
    assert together[0].shape == (50, 20)
    for user, draw in ((0, 0), (49, 19), (13, 7)):
        assert [word[user, draw] for word in together] == [int(word) for word in threefry2x32((1, 2), (user, draw))]


def test_keys_differ_between_seeds_streams_and_epochs() -> None:
    keys = [
        derive_key(seed, stream, epoch)
        for seed in (0, 1, 1 << 32, (1 << 63) - 1)
        for stream in Stream
        for epoch in (0, 1)
    ]
    assert len(set(keys)) == len(keys)


def test_uniform_integers_reach_both_ends_and_no_further() -> None:
    words = np.array([0, 1, (1 << 32) - 1], np.uint32)
    assert uniform_integers(words, 10).tolist() == [0, 0, 9]
    assert uniform_integers(words, np.array([1, 2, 26_744])).tolist() == [0, 0, 26_743]


def test_uniform_integers_are_uniform() -> None:
    words, other_words = threefry2x32(derive_key(3, Stream.LOO_99), (np.arange(100_000), 0))
    for draws in (words, other_words):
        counts = np.bincount(uniform_integers(draws, 97), minlength=97)
        assert stats.chisquare(counts).pvalue > 1e-3
