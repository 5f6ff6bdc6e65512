"""Zip files that somebody damaged or armed: each is refused with one sentence, and nothing is left behind."""

import hashlib
import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.download.download import download
from components.ncf.errors import InputError

Members = dict[str, bytes]


@pytest.fixture
def refusal(tmp_path: Path, config: Callable[..., Any], make_mirror: Callable[..., str]) -> Callable[..., str]:
    """Returns a function that downloads an archive and returns the sentence that refuses it."""

    def refuse(archive: Members | bytes, **changes: Any) -> str:
        mirror = make_mirror("ml-1m", archive, **changes)
        with pytest.raises(InputError) as caught:
            download(config("ml-1m", mirror=mirror), tmp_path / "out" / "ratings")
        assert list((tmp_path / "out").iterdir()) == [], "something was left behind"
        assert not (tmp_path / "escaped.txt").exists()
        sentence = str(caught.value)
        assert sentence.startswith(f"{mirror}/ml-1m.zip ")
        assert "\n" not in sentence
        return sentence.removeprefix(f"{mirror}/ml-1m.zip ")

    return refuse


def with_entry(members: Members, entry: zipfile.ZipInfo | str, content: bytes = b"x") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
        archive.writestr(entry, content)
    return stream.getvalue()


def zipped(members: Members) -> bytes:
    return with_entry(members, "ml-1m/README", b"")


def test_a_wrong_checksum_is_found_before_the_archive_is_opened(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", None)  # opening it would be a TypeError
    sentence = refusal(b"anything", md5="0" * 32)

    assert sentence == (
        f"is damaged or is not the published file (md5 {hashlib.md5(b'anything').hexdigest()}, expected {'0' * 32}): "
        "remove it and fetch it again, or name another mirror with --mirror."
    )


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 0.99])
def test_a_truncated_zip(refusal: Callable[..., str], small_ml_1m: Members, kept_share: float) -> None:
    whole = zipped(small_ml_1m)
    sentence = refusal(whole[: int(len(whole) * kept_share)])

    assert sentence.startswith("is truncated or corrupt (file is not a zip file): remove it")


def test_a_flipped_byte_inside_a_member(refusal: Callable[..., str], small_ml_1m: Members) -> None:
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name, text in small_ml_1m.items():
            archive.writestr(name, text)
    damaged = stored.getvalue().replace(b"1::10::5", b"1::10::4")

    assert "is truncated or corrupt (bad CRC-32 for file 'ml-1m/ratings.dat')" in refusal(damaged)


def test_a_damaged_deflate_stream(refusal: Callable[..., str], small_ml_1m: Members) -> None:
    whole = bytearray(zipped({**small_ml_1m, "ml-1m/ratings.dat": small_ml_1m["ml-1m/ratings.dat"] * 100}))
    start = whole.index(b"ml-1m/ratings.dat") + len("ml-1m/ratings.dat")
    whole[start : start + 20] = b"\xff" * 20

    assert refusal(bytes(whole)).startswith("is truncated or corrupt (")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../escaped.txt", "leads out of its folder"),
        ("ml-1m/../../escaped.txt", "leads out of its folder"),
        ("..\\escaped.txt", "leads out of its folder"),
        ("/tmp/escaped.txt", "has an absolute path"),
        ("C:\\escaped.txt", "has an absolute path"),
    ],
)
def test_an_entry_that_leads_elsewhere(
    refusal: Callable[..., str], small_ml_1m: Members, name: str, reason: str
) -> None:
    sentence = refusal(with_entry(small_ml_1m, name))

    assert sentence == f"is not safe to open (its entry {name!r} {reason}): use another mirror."


def test_a_symbolic_link(refusal: Callable[..., str], small_ml_1m: Members) -> None:
    link = zipfile.ZipInfo("ml-1m/link")
    link.create_system = 3  # Unix, whose file modes the attributes then hold
    link.external_attr = (stat.S_IFLNK | 0o777) << 16

    assert "its entry 'ml-1m/link' is a symbolic link" in refusal(with_entry(small_ml_1m, link, b"/etc/passwd"))


def test_an_encrypted_entry(refusal: Callable[..., str], small_ml_1m: Members) -> None:
    archive = bytearray(zipped(small_ml_1m))
    for signature, flag_offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.index(signature) + flag_offset] |= 1

    assert "its entry 'ml-1m/ratings.dat' is encrypted" in refusal(bytes(archive))


def test_a_zip_bomb(refusal: Callable[..., str], small_ml_1m: Members) -> None:
    bomb = zipped({**small_ml_1m, "ml-1m/bomb": bytes(50_000_000)})
    sentence = refusal(bomb)

    unpacked = 50_000_000 + sum(len(text) for text in small_ml_1m.values())
    assert f"its {len(bomb):,} bytes unpack to {unpacked:,}, above 100 times as many" in sentence


def test_a_member_that_is_larger_than_it_says(refusal: Callable[..., str], small_ml_1m: Members) -> None:
    # The bomb's other form: the directory lies about the size. What is read ends where the lie ends.
    ratings = small_ml_1m["ml-1m/ratings.dat"] * 1_000
    archive = bytearray(zipped({**small_ml_1m, "ml-1m/ratings.dat": ratings}))
    true_size, false_size = (size.to_bytes(4, "little") for size in (len(ratings), 100))
    archive = archive.replace(true_size, false_size)

    assert "bad CRC-32" in refusal(bytes(archive))


def test_another_data_sets_archive(refusal: Callable[..., str]) -> None:
    sentence = refusal({"ml-100k/u.data": b"1\t2\t3\t4\n"})

    assert sentence.startswith("holds no ml-1m/ratings.dat: remove it")
