import json
import socket
from typing import Any

import pytest
import tensorflow as tf

from components.ncf.errors import InputError
from components.train import strategy as strategies
from components.train.strategy import Cluster, Server, choose_strategy, place, read_cluster

CHIEF_AND_WORKER = {"chief": ["a:1"], "worker": ["b:1"]}
WITH_SERVER = {**CHIEF_AND_WORKER, "ps": ["c:1"]}


def environment_of(tasks: dict[str, list[str]], role: str, index: int = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": tasks, "task": {"type": role, "index": index}})}


@pytest.mark.parametrize(
    ("tasks", "num_gpus", "has_tpu", "expected"),
    [
        (None, 0, False, "one_device"),
        (None, 1, False, "one_device"),
        (None, 2, False, "mirrored"),
        (None, 0, True, "tpu"),
        (None, 2, True, "tpu"),
        (CHIEF_AND_WORKER, 0, False, "multi_worker_mirrored"),
        (CHIEF_AND_WORKER, 4, True, "multi_worker_mirrored"),
        (WITH_SERVER, 0, False, "parameter_server"),
    ],
)
def test_auto_follows_the_cluster_then_the_tpu_then_the_gpus(
    tasks: dict[str, list[str]] | None, num_gpus: int, has_tpu: bool, expected: str
) -> None:
    cluster = Cluster(tasks, "chief", 0) if tasks else None
    assert choose_strategy(cluster, num_gpus, has_tpu) == expected


def test_a_tpu_is_there_by_name_or_as_a_device_with_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert strategies._has_tpu({"TPU_NAME": "local"})
    monkeypatch.setattr(strategies, "_TPU_DEVICES", ("null",))
    for library, expected in ((None, False), (object(), True)):
        monkeypatch.setattr("importlib.util.find_spec", lambda _name, found=library: found)
        assert strategies._has_tpu({}) is expected


def test_the_cluster_is_what_tf_config_says() -> None:
    cluster = read_cluster(environment_of({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 1))
    assert cluster is not None
    assert (cluster.role, cluster.index, cluster.num_workers, cluster.is_chief) == ("worker", 1, 3, False)


@pytest.mark.parametrize(
    ("tasks", "role", "index", "expected"),
    [
        (CHIEF_AND_WORKER, "chief", 0, True),
        (CHIEF_AND_WORKER, "worker", 0, False),
        ({"master": ["a:1"], "worker": ["b:1"]}, "master", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, False),
    ],
)
def test_the_chief_or_else_the_first_worker_writes(
    tasks: dict[str, list[str]], role: str, index: int, expected: bool
) -> None:
    assert Cluster(tasks, role, index).is_chief is expected


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": " "}, environment_of({"chief": ["a:1"]}, "chief")])
def test_no_cluster_or_one_of_a_single_process_is_none(environment: dict[str, str]) -> None:
    assert read_cluster(environment) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{cluster", "is not the JSON that TensorFlow expects"),
        ("[1]", "is not the JSON that TensorFlow expects"),
        ('{"cluster": {"chief": 3}}', "is not the JSON that TensorFlow expects"),
        (environment_of(CHIEF_AND_WORKER, "worker", 1)["TF_CONFIG"], "task worker 1 is not in its cluster"),
        (environment_of(CHIEF_AND_WORKER, "worker", -1)["TF_CONFIG"], "task worker -1 is not in its cluster"),
        (environment_of(CHIEF_AND_WORKER, "")["TF_CONFIG"], "is not in its cluster"),
    ],
)
def test_a_wrong_tf_config_is_quoted(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        read_cluster({"TF_CONFIG": text})
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("name", ["one_device", "mirrored", "tpu"])
def test_a_strategy_of_one_process_is_refused_in_a_cluster(name: str) -> None:
    with pytest.raises(InputError, match=f"train.strategy is {name}.*TF_CONFIG names 2 that train together"):
        place(name, environment_of(CHIEF_AND_WORKER, "chief"))


@pytest.mark.parametrize("name", ["multi_worker_mirrored", "parameter_server"])
def test_a_strategy_of_several_processes_is_refused_without_tf_config(name: str) -> None:
    with pytest.raises(InputError, match=f"train.strategy is {name}, but the environment variable TF_CONFIG"):
        place(name, {})


@pytest.mark.parametrize("name", ["multi_worker_mirrored", "auto"])
def test_the_role_of_an_evaluator_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no use for the role 'evaluator'"):
        place(name, environment_of({**CHIEF_AND_WORKER, "evaluator": ["c:1"]}, "evaluator"))


@pytest.mark.parametrize("missing", ["chief", "worker", "ps"])
def test_a_parameter_server_cluster_needs_all_three_roles(missing: str) -> None:
    tasks = {role: addresses for role, addresses in WITH_SERVER.items() if role != missing}
    with pytest.raises(InputError, match="needs tasks in the roles chief, worker and ps"):
        place("parameter_server", environment_of(tasks, next(iter(tasks))))


def test_a_server_ends_when_the_chief_has_been_away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "_CHIEF_GRACE_S", 0.2)
    monkeypatch.setattr(strategies, "_POLL_INTERVAL_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as chief:
        address = f"127.0.0.1:{chief.getsockname()[1]}"
        assert strategies._answers(address)
        answers = iter([False] * 10 + [True] * 3)
        monkeypatch.setattr(strategies, "_answers", lambda asked: asked == address and next(answers, False))
        server = Server.__new__(Server)
        server._chief = address
        server.wait_for_the_chief_to_end()
    assert next(answers, None) is None, "it ended before the chief was there, or with the chief still there"
    assert not strategies._answers("127.0.0.1:1")


def test_without_a_tpu_a_sentence_says_what_to_do() -> None:
    with pytest.raises(InputError) as error:
        place("tpu", {"TPU_NAME": "local"})
    for words in ("train.strategy is tpu, but no TPU answers at 'local'", "tensorflow-tpu", "one_device"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "address", "connects"),
    [({}, "local", False), ({"TPU_NAME": "local"}, "local", False), ({"TPU_NAME": "node-1"}, "node-1", True)],
)
def test_a_tpu_is_found_connected_to_and_initialised_before_the_strategy_is_made(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], address: str, connects: bool
) -> None:
    calls: list[Any] = []

    def stand_in(name: str, returns: Any = None) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls.append((name, *arguments, *named.values()))
            return returns

        return call

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", stand_in("resolve", "resolver"))
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", stand_in("connect"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", stand_in("initialize"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", stand_in("make", "strategy"))
    placement = place("tpu", environment)
    connecting = [("connect", "resolver")] if connects else []
    assert calls == [("resolve", address), *connecting, ("initialize", "resolver"), ("make", "resolver")]
    assert isinstance(placement, strategies.Placement)
    assert (placement.name, placement.strategy, placement.is_chief) == ("tpu", "strategy", True)


@pytest.mark.parametrize("address", ["c", "a:b", "host:", ":80"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(InputError, match=rf"TF_CONFIG names '{address}', which is not of the form HOST:PORT"):
        read_cluster(environment_of({"worker": ["b:1", address]}, "worker"))


@pytest.mark.parametrize("name", ["auto", "parameter_server"])
def test_a_lone_parameter_server_does_not_train_by_itself(name: str) -> None:
    with pytest.raises(InputError, match="needs tasks in the roles chief, worker and ps; TF_CONFIG has ps"):
        place(name, environment_of({"ps": ["localhost:1"]}, "ps"))
