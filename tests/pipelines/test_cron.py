"""Schedules that the backends' schedulers read, and those that they do not, or read as something else."""

import pytest

from components.ncf.errors import InputError
from pipelines.cron import check_cron, with_seconds, without_seconds


@pytest.mark.parametrize("backend", ["vertex", "kfp"])
@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "0 3 * * 1",
        "59 23 31 12 6",
        "*/15 0-6,18-23/2 1,15 JAN-mar mon",
        "5/20 ? ? * ?",
        "0 0 29 2 *",
        "0 0 31 1-2 *",
        # Either the 31st of February or a Monday in it: the second comes.
        "0 0 31 2 MON",
    ],
)
def test_what_both_read(cron: str, backend: str) -> None:
    check_cron(cron, backend)


def test_time_zones_are_vertexs_and_seconds_kubeflows() -> None:
    for prefix in ("TZ=Europe/Paris", "CRON_TZ=America/New_York", "TZ=UTC"):
        check_cron(f"{prefix} 0 3 * * 1", "vertex")
        with pytest.raises(InputError, match="by its own clock"):
            check_cron(f"{prefix} 0 3 * * 1", "kfp")
    check_cron("30 0 3 * * 1", "kfp")
    with pytest.raises(InputError, match="five fields"):
        check_cron("30 0 3 * * 1", "vertex")
    assert with_seconds("0 3 * * 1") == "0 0 3 * * 1"
    assert with_seconds("30 0 3 * * 1") == "30 0 3 * * 1"


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "must be five fields"),
        ("0 3 * *", "must be five fields"),
        ("@daily", "must be five fields"),
        ("60 * * * *", "the minute 60 is outside 0 to 59"),
        ("0 24 * * *", "the hour 24 is outside 0 to 23"),
        ("0 0 0 * *", "the day 0 is outside 1 to 31"),
        ("0 0 32 * *", "the day 32 is outside 1 to 31"),
        ("0 0 * 13 *", "the month 13 is outside 1 to 12"),
        ("0 0 * * 7", "the weekday 7 is outside 0 to 6; Sunday is 0"),
        ("0 0 * * 1-9", "the weekday 9 is outside"),
        ("0 0 * FEBR *", "the month 'FEBR' must be a number from 1 to 12, or JAN to DEC"),
        ("0 MON * * *", "the hour 'MON' must be a number from 0 to 23."),
        ("-5 * * * *", "the minute '' must be a number"),
        ("1,,2 * * * *", "the minute '' must be a number"),
        ("0 0 L * *", "the day 'L' must be a number"),
        ("0 0 * * 1#2", "the weekday '1#2' must be a number"),
        ("0 22-4 * * *", "the hours 22-4 end before they begin"),
        ("0 0 * * FRI-MON", "the weekdays FRI-MON end before they begin"),
        ("*/0 * * * *", "the step '0' of the minutes must be a whole number of at least 1"),
        ("*/x * * * *", "the step 'x' of the minutes"),
        ("*/٣ * * * *", "the step '٣' of the minutes"),
        ("0/5/7 * * * *", "the step '5/7' of the minutes"),
        ("0 0 31 4,6 *", "never comes: no such month has a day 31"),
        ("0 0 30-31 2 ?", "never comes: no such month has a day 30"),
        ("TZ=Europe/Atlantis 0 3 * * 1", "'Europe/Atlantis' is no time zone"),
        ("TZ= 0 3 * * 1", "'' is no time zone"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(cron: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        check_cron(cron, "vertex")
    text = str(caught.value)
    assert text.startswith(f"--schedule {cron!r}")
    assert words in text
    assert "\n" not in text


def test_the_second_has_a_range_too() -> None:
    with pytest.raises(InputError, match="the second 61 is outside 0 to 59"):
        check_cron("61 0 3 * * 1", "kfp")


@pytest.mark.parametrize(
    ("cron", "shown"),
    [("0 0 3 * * 1", "0 3 * * 1"), ("0 3 * * 1", "0 3 * * 1"), ("30 0 3 * * 1", "30 0 3 * * 1")],
)
def test_only_a_second_is_left_out_of_a_listing(cron: str, shown: str) -> None:
    assert without_seconds(cron) == shown
