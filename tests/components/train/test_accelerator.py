"""Whether what runs on an accelerator could: static shapes, nothing but compiled operations, none on the host.

The XLA compiler for this machine's processor stands in for a TPU's, which is not here.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.framework import kernels

from components.train.config import TrainConfig
from components.train.input_pipeline import TrainingData
from components.train.loop import TrainingLoop
from components.train.phases import plan_phases

MakeConfig = Callable[..., TrainConfig]
MakeLoop = Callable[..., TrainingLoop]

# What XLA takes apart itself, so that it needs no kernel.
_STRUCTURE = {
    "NoOp", "While", "StatelessWhile", "If", "StatelessIf", "PartitionedCall", "StatefulPartitionedCall", "Placeholder",
}  # fmt: skip
# Yields a list of axes, of a length that the shapes of its inputs determine: a constant to the compiler.
_CONSTANT = "BroadcastGradientArgs"
_HOST_INSTRUCTIONS = re.compile(r"\b(outfeed|infeed|send|recv|custom-call|rng-get-and-update-state)[a-z-]*\(")
_DYNAMIC_DIMENSION = re.compile(r"\[[0-9, ]*<=")
_WIDE_TYPES = re.compile(r"\b([suf]64)\[")


def nodes_of(concrete: Any) -> Iterator[Any]:
    graph = concrete.graph.as_graph_def(add_shapes=True)
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def flaws_of_graph(function: Any, *arguments: Any) -> set[str]:
    """Returns the operations that XLA has no kernel for, and those with a shape that is not known beforehand."""
    # The compiler registers its kernels when it first compiles.
    tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1))
    flaws = set()
    for node in nodes_of(function.get_concrete_function(*arguments)):
        devices = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(node.op).kernel}
        if node.op not in _STRUCTURE and "XLA_CPU_JIT" not in devices:
            flaws.add(f"no XLA kernel: {node.op}")
        shapes = () if node.op == _CONSTANT else node.attr["_output_shapes"].list.shape
        for shape in shapes:
            if shape.unknown_rank or any(dimension.size < 0 for dimension in shape.dim):
                flaws.add(f"unknown shape: {node.op}")
    return flaws


def flaws_of_program(function: Any, *arguments: Any) -> set[str]:
    """Returns what the compiled program does with the host, its dynamic dimensions and its 64-bit types."""
    hlo = function.experimental_get_compiler_ir(*arguments)(stage="hlo")
    assert "ENTRY" in hlo
    host = {f"host: {match[1]}" for match in _HOST_INSTRUCTIONS.finditer(hlo)}
    wide = {f"wide type: {match[1]}" for match in _WIDE_TYPES.finditer(hlo)}
    return host | wide | ({"dynamic dimension"} if _DYNAMIC_DIMENSION.search(hlo) else set())


class StandIn:
    """Runs one replica's function where a TPU's strategy would: shows the program that it would be given."""

    def __init__(self, num_replicas: int) -> None:
        self.num_replicas_in_sync = num_replicas
        # Not known while compiling, as on a TPU.
        self.replica_id_in_sync_group = tf.Variable(0)

    def scope(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, function: Callable[[], Any]) -> Any:
        return function()

    def experimental_local_results(self, value: Any) -> tuple[Any, ...]:
        return (value,)

    def all_reduce(self, operation: tf.distribute.ReduceOp, value: tf.Tensor) -> tf.Tensor:
        assert operation == tf.distribute.ReduceOp.SUM
        if self.num_replicas_in_sync == 1:
            return value
        # TPUStrategy asks for CrossReplicaSum, which only a TPU's compiler has; this is the same instruction.
        replicas = tf.constant([list(range(self.num_replicas_in_sync))])
        return gen_xla_ops.xla_all_reduce(input=value, group_assignment=replicas, reduce_op="Add", mode="CrossReplica")


def loop_on_stand_in(
    monkeypatch: pytest.MonkeyPatch, config: TrainConfig, data: TrainingData, num_replicas: int
) -> TrainingLoop:
    strategy = StandIn(num_replicas)
    monkeypatch.setattr(tf.distribute, "TPUStrategy", StandIn)
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: strategy)
    (phase,) = plan_phases(config, data.num_users, data.num_items)
    return TrainingLoop(config, phase, data, strategy)


def call_arguments(loop: TrainingLoop, data: TrainingData) -> tuple[Any, ...]:
    (window,) = data.windows(0, [0])
    return (window, loop._keys(0), *map(tf.constant, (0, 1, 0)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd"},
        {"precision": "bfloat16"},
        {"mf_regularization": 0.1, "mlp_regularization": (0.0, 0.1, 0.1)},
        {"global_batch_size": 1000},
    ],
    ids=["adam", "sgd", "bfloat16", "regularized", "one large batch"],
)
def test_the_whole_loop_compiles_with_static_shapes_and_nothing_on_the_host(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, changes: dict[str, Any]
) -> None:
    loop = make_loop(make_config(**changes))
    arguments = call_arguments(loop, data)
    assert flaws_of_graph(loop._call, *arguments) == set()
    assert flaws_of_program(loop._call, *arguments) == set()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_tpus_replica_compiles_with_its_all_reduce_and_nothing_on_the_host(
    make_config: MakeConfig, data: TrainingData, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    loop = loop_on_stand_in(monkeypatch, make_config(optimizer=optimizer), data, num_replicas=4)
    assert loop._call.python_function == loop._run_on_tpu
    arguments = call_arguments(loop, data)
    assert flaws_of_graph(tf.function(loop._run_on_tpu), *arguments) == set()
    compiled = tf.function(loop._run_on_tpu, jit_compile=True)
    assert flaws_of_program(compiled, *arguments) == set()
    program = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
    assert len(re.findall(r" all-reduce\(", program)) == 1
    assert "replica_groups={{0,1,2,3}}" in program


def test_a_tpus_replica_alone_computes_what_one_device_does(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make_loop(make_config())
    loop = loop_on_stand_in(monkeypatch, make_config(), data, num_replicas=1)
    loop._call = tf.function(loop._run_on_tpu, jit_compile=True)
    for epoch in range(2):
        assert loop.run_epoch(epoch).loss == pytest.approx(expected.run_epoch(epoch).loss, abs=1e-5)
    for a, b in zip(loop.state(), expected.state(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    assert data.selection is not None
    scores = [one.scorer()(data.selection.users, data.selection.items) for one in (loop, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("num_users", [1, 6, 7])
def test_replicas_divide_the_users_to_rank(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData, num_users: int
) -> None:
    one, two = make_loop(make_config()), make_loop(make_config(strategy="mirrored"))
    assert data.selection is not None
    users, items = data.selection.users[:num_users], data.selection.items[:num_users]
    np.testing.assert_allclose(two.scorer()(users, items), one.scorer()(users, items), rtol=1e-5, atol=1e-8)


def test_ranking_compiles_with_static_shapes_and_nothing_on_the_host(
    make_config: MakeConfig, make_loop: MakeLoop, data: TrainingData
) -> None:
    loop = make_loop(make_config())
    assert data.selection is not None
    weights = [tf.convert_to_tensor(weight) for weight in loop._weights]
    arguments = (weights, tf.constant(data.selection.users), tf.constant(data.selection.items))
    assert flaws_of_graph(loop._score, *arguments) == set()
    assert flaws_of_program(loop._score, *arguments) == set()


@pytest.mark.parametrize(
    ("offence", "graph_flaw"),
    [
        (lambda x: tf.py_function(lambda y: y, [x], tf.int32), "no XLA kernel: EagerPyFunc"),
        (lambda x: tf.unique(x)[0], "unknown shape: Unique"),
        (lambda x: tf.boolean_mask(x, x > 3), "unknown shape: "),
        (lambda x: tf.strings.as_string(x), "no XLA kernel: AsString"),
        (lambda x: tf.range(x[3]), "unknown shape: Range"),
    ],
    ids=["python", "unique", "mask", "string", "range"],
)
def test_an_operation_that_does_not_belong_there_is_found_in_the_graph(
    offence: Callable[[tf.Tensor], tf.Tensor], graph_flaw: str
) -> None:
    found = flaws_of_graph(tf.function(offence, jit_compile=True), tf.range(8))
    assert any(flaw.startswith(graph_flaw) for flaw in found), found


@pytest.mark.parametrize(
    ("offence", "flaw"),
    [
        (lambda x: tf.cast(x, tf.int64) * 3, "wide type: s64"),
        (lambda x: tf.cast(x, tf.float64) * 3, "wide type: f64"),
        (lambda x: tf.reduce_sum(tf.where(x > 3)), "dynamic dimension"),
        (lambda x: tf.linalg.qr(tf.eye(8) * tf.cast(x[1], tf.float32))[0], "host: custom-call"),
    ],
    ids=["int64", "float64", "where", "custom call"],
)
def test_an_instruction_that_does_not_belong_there_is_found_in_the_program(
    offence: Callable[[tf.Tensor], tf.Tensor], flaw: str
) -> None:
    assert flaw in flaws_of_program(tf.function(offence, jit_compile=True), tf.range(8))
