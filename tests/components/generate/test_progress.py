import logging
import time

import pytest

from components.generate.progress import counted_here, describe, logging_progress


def test_counters_are_put_into_words_with_the_totals_that_are_known() -> None:
    assert describe({"rows_read": 1_200_000, "files": 3}, {"rows_read": 2_000_000}) == (
        "3 files, 1,200,000 of 2,000,000 rows read"
    )


def test_a_line_appears_when_a_counter_has_changed_and_only_then(caplog: pytest.LogCaptureFixture) -> None:
    counters = {"rows_read": 0, "users": 5}
    with caplog.at_level(logging.INFO), logging_progress({}, lambda: counters, 0.01):
        wait_for(caplog, 1)
        time.sleep(0.1)
        assert len(caplog.records) == 1
        counters["rows_read"] = 7
        wait_for(caplog, 2)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ["5 users", "7 rows read"]


def test_a_service_that_fails_to_tell_does_not_disturb_the_run(caplog: pytest.LogCaptureFixture) -> None:
    num_calls = 0

    def fail_twice() -> dict[str, int]:
        nonlocal num_calls
        num_calls += 1
        if num_calls < 3:
            raise ConnectionError("the job server is busy")
        return {"rows_read": 1}

    with caplog.at_level(logging.INFO), logging_progress({}, fail_twice, 0.01):
        wait_for(caplog, 1)
    assert caplog.records[0].getMessage().endswith("1 rows read")
    assert counted_here() == {}


def wait_for(caplog: pytest.LogCaptureFixture, num_records: int) -> None:
    deadline = time.monotonic() + 60
    while len(caplog.records) < num_records and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(caplog.records) >= num_records
