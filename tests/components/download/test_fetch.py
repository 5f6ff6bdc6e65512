import hashlib
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from components.download.fetch import MIRROR_ADVICE, FileMissingError, check_md5, fetch, published_md5
from components.download.http_transfer import RetryPolicy
from components.ncf.errors import InputError

CONTENT = random.Random(0).randbytes(3_000_000)


def fetch_from(server: Any, folder: Path, content: bytes, **behaviour: Any) -> bytes:
    server.put("/a.zip", content, **behaviour)
    return fetch(f"{server.url}/a.zip", folder, MIRROR_ADVICE).read_bytes()


@pytest.mark.usefixtures("impatient")
class TestDroppedConnections:
    def test_two_drops_are_resumed_where_they_happened(self, server: Any, tmp_path: Path) -> None:
        fetched = fetch_from(server, tmp_path, CONTENT, drops=[1_000_000, 500_000])

        assert fetched == CONTENT
        first, second, third = server.ranges_asked("/a.zip")
        assert first is None
        # What arrived before the cut may be a little less than what was sent, but not by more than one read.
        starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in (second, third) if asked]
        assert 1_000_000 - 65_536 <= starts[0] <= 1_000_000
        assert starts[0] + 500_000 - 65_536 <= starts[1] <= starts[0] + 500_000
        assert [request.if_range for request in server.requests] == [None, '"one"', '"one"']

    def test_a_server_without_ranges_makes_it_start_over(self, server: Any, tmp_path: Path) -> None:
        fetched = fetch_from(server, tmp_path, CONTENT, ranges=False, drops=[1_000_000])

        assert fetched == CONTENT
        assert server.ranges_asked("/a.zip")[1] is not None

    def test_a_file_that_changed_meanwhile_is_not_glued_to_its_old_half(self, server: Any, tmp_path: Path) -> None:
        newer = server.put("/newer", bytes(reversed(CONTENT)), etag='"two"')
        fetched = fetch_from(server, tmp_path, CONTENT, drops=[1_000_000], replaced_by=newer)

        assert fetched == newer.content

    def test_a_file_that_shrank_below_what_arrived_is_fetched_anew(self, server: Any, tmp_path: Path) -> None:
        shorter = server.put("/shorter", b"short", etag="")
        fetched = fetch_from(server, tmp_path, CONTENT, etag="", drops=[1_000_000], replaced_by=shorter)

        assert fetched == b"short"
        assert len(server.requests) == 3  # cut, 416, all of it

    def test_a_weak_entity_tag_is_never_sent_as_a_condition(self, server: Any, tmp_path: Path) -> None:
        fetch_from(server, tmp_path, CONTENT, etag='W/"one"', drops=[1_000_000])

        assert [request.if_range for request in server.requests] == [None, None]

    def test_a_server_that_always_drops_gives_one_sentence(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            fetch_from(server, tmp_path, CONTENT, always_drop_at=100_000)

        assert str(caught.value) == (
            f"{server.url}/a.zip could not be fetched (the connection was dropped, 4 attempts): check the network, or "
            "name a mirror that you can reach with --mirror (https://, gs:// or file://)."
        )
        assert len(server.requests) == 4

    def test_attempts_that_bring_new_bytes_are_not_held_against_the_server(self, server: Any, tmp_path: Path) -> None:
        content = random.Random(1).randbytes(12_000_000)  # nine cuts, with four attempts allowed
        fetched = fetch_from(server, tmp_path, content, drops=[1_200_000] * 9)

        assert fetched == content
        assert len(server.requests) == 10

    def test_starting_over_again_and_again_is_no_progress(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="dropped"):
            fetch_from(server, tmp_path, CONTENT, ranges=False, always_drop_at=2_500_000)

        assert len(server.requests) == 4


@pytest.mark.usefixtures("impatient")
class TestAnswers:
    def test_overload_is_waited_out(self, server: Any, tmp_path: Path) -> None:
        assert fetch_from(server, tmp_path, CONTENT, statuses=[503, 500]) == CONTENT

    def test_lasting_overload_names_the_status(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"the server answers 503 Service Unavailable, 4 attempts"):
            fetch_from(server, tmp_path, CONTENT, statuses=[503] * 9)

    @pytest.mark.parametrize("status", [403, 404])
    def test_a_refusal_is_final(self, server: Any, tmp_path: Path, status: int) -> None:
        with pytest.raises(InputError, match=f"the server answers {status}.*--mirror"):
            fetch_from(server, tmp_path, CONTENT, statuses=[status])

        assert len(server.requests) == 1

    def test_only_404_means_that_the_file_is_missing(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(FileMissingError):
            fetch(f"{server.url}/nowhere.zip", tmp_path, MIRROR_ADVICE)
        with pytest.raises(InputError) as caught:
            fetch_from(server, tmp_path, CONTENT, statuses=[403])
        assert not isinstance(caught.value, FileMissingError)

    def test_a_silent_server_is_asked_again(
        self, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: RetryPolicy
    ) -> None:
        monkeypatch.setattr("components.download.http_transfer.RETRY_POLICY", _with_read_timeout(impatient, 1.0))

        assert fetch_from(server, tmp_path, CONTENT, stalls=1) == CONTENT
        assert len(server.requests) == 2


def _with_read_timeout(policy: RetryPolicy, read_timeout_s: float) -> RetryPolicy:
    return RetryPolicy(**{**vars(policy), "read_timeout_s": read_timeout_s})


class TestNoNetwork:
    def test_an_unknown_host_is_one_sentence_within_seconds(self, tmp_path: Path) -> None:
        started = time.monotonic()
        with pytest.raises(InputError) as caught:
            fetch("http://no-such-host.invalid/ml-1m.zip", tmp_path, MIRROR_ADVICE)

        assert str(caught.value).startswith(
            "http://no-such-host.invalid/ml-1m.zip could not be fetched (its host name "
        )
        assert "--mirror" in str(caught.value)
        assert time.monotonic() - started < 10  # with the real, patient policy

    @pytest.mark.usefixtures("impatient")
    def test_a_closed_port_is_one_sentence(self, tmp_path: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(InputError, match=r"refuses the connection or cannot be reached, 2 attempts"):
            fetch(f"http://127.0.0.1:{port}/a.zip", tmp_path, MIRROR_ADVICE)


class TestPlaces:
    def test_a_local_file_is_used_in_place(self, tmp_path: Path) -> None:
        path = tmp_path / "with a space%.csv"
        path.write_text("x")

        assert fetch(path.as_uri(), tmp_path / "unused", "") == path
        assert fetch(str(path), tmp_path / "unused", "") == path
        assert not (tmp_path / "unused").exists()

    def test_a_missing_local_file_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(FileMissingError, match=r"file:///nowhere/a.zip does not exist: look there\.$"):
            fetch("file:///nowhere/a.zip", tmp_path, "look there")

    def test_a_relative_path_says_where_it_was_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileMissingError, match=rf"^events.csv does not exist in {tmp_path}: look there\.$"):
            fetch("events.csv", tmp_path, "look there")

    def test_a_tilde_is_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "events.csv").write_text("x")
        assert fetch("~/events.csv", tmp_path, "") == tmp_path / "events.csv"

    def test_a_folder_is_not_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="is not a file"):
            fetch(tmp_path.as_uri(), tmp_path, "look there")

    def test_two_slashes_would_name_a_machine(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"names another machine \(data\): write file:///path"):
            fetch("file://data/ml-1m.zip", tmp_path, "")

    def test_an_unknown_scheme_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="unknown scheme: use https://"):
            fetch("ftp://host/a.zip", tmp_path, "")

    @pytest.fixture
    def bucket(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The storage client's own switch makes it talk to the local server."""
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.url)
        return server

    def test_a_bucket_is_read(self, bucket: Any, tmp_path: Path) -> None:
        bucket.put("/storage/v1/b/bucket/o/folder%2Fa.zip?alt=media", CONTENT)

        assert fetch("gs://anonymous@bucket/folder/a.zip", tmp_path, MIRROR_ADVICE).read_bytes() == CONTENT

    @pytest.mark.usefixtures("bucket")
    def test_a_missing_object_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(FileMissingError, match=r"^gs://anonymous@bucket/a.zip does not exist: check the network"):
            fetch("gs://anonymous@bucket/a.zip", tmp_path, MIRROR_ADVICE)

    def test_a_forbidden_object_is_one_sentence(self, bucket: Any, tmp_path: Path) -> None:
        bucket.put("/storage/v1/b/bucket/o/a.zip?alt=media", CONTENT, statuses=[403])

        with pytest.raises(
            InputError, match=r"could not be fetched \(permission denied\): check the network"
        ) as caught:
            fetch("gs://anonymous@bucket/a.zip", tmp_path, MIRROR_ADVICE)
        assert "\n" not in str(caught.value)


class TestMd5:
    DIGEST = hashlib.md5(b"content").hexdigest()

    @pytest.mark.parametrize(
        "text",
        [
            "{hex}  ml-1m.zip\n",
            "{hex} *ml-1m.zip\n",
            "MD5 (ml-1m.zip) = {hex}\n",
            "{HEX}\n",
            "{hex}",
            "0" * 32 + "  ml-100k.zip\n{hex}  ml-1m.zip\n",
        ],
        ids=["md5sum", "md5sum_binary", "bsd", "upper_case_alone", "no_line_end", "one_of_several"],
    )
    def test_the_usual_forms_are_read(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "ml-1m.zip.md5").write_text(text.format(hex=self.DIGEST, HEX=self.DIGEST.upper()))

        assert published_md5((tmp_path / "ml-1m.zip").as_uri(), tmp_path, "") == self.DIGEST

    def test_a_web_page_is_no_md5(self, tmp_path: Path) -> None:
        (tmp_path / "ml-1m.zip.md5").write_text("<html>please log in</html>")

        with pytest.raises(InputError, match=r"ml-1m.zip.md5 holds no md5: write `md5sum ml-1m.zip` into it"):
            published_md5((tmp_path / "ml-1m.zip").as_uri(), tmp_path, "")

    def test_a_difference_names_both_and_the_address(self, tmp_path: Path) -> None:
        path = tmp_path / "a.zip"
        path.write_bytes(b"other")

        check_md5(path, "https://host/a.zip", hashlib.md5(b"other").hexdigest(), "try again")
        with pytest.raises(InputError) as caught:
            check_md5(path, "https://host/a.zip", self.DIGEST, "try again")
        assert str(caught.value) == (
            "https://host/a.zip is damaged or is not the published file "
            f"(md5 {hashlib.md5(b'other').hexdigest()}, expected {self.DIGEST}): try again."
        )
