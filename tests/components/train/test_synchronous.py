from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from components.train.config import TrainConfig
from components.train.loop import TrainingLoop
from components.train.synchronous import SynchronousReplicas

MakeConfig = Callable[..., TrainConfig]
MakeLoop = Callable[..., TrainingLoop]
# Two groups of two examples a step, one for each replica: few look-ups beside 40 users and 60 items.
FEW_LOOK_UPS = {"strategy": "mirrored", "global_batch_size": 4, "num_train_negatives": 1}


def replicas_of(loop: TrainingLoop) -> SynchronousReplicas:
    replicas = loop._call.__self__
    assert isinstance(replicas, SynchronousReplicas)
    return replicas


def copies_are_equal(replicas: SynchronousReplicas) -> bool:
    one, two = replicas._replicas
    return all(np.array_equal(a, b) for a, b in zip(one.saved, two.saved, strict=True))


@pytest.mark.parametrize(
    ("changes", "rows_sent", "rows_that_lag"),
    [
        ({}, [1, 2, 1, 2], [40, 60, 40, 60]),
        ({"mf_regularization": 0.1}, [], []),
        ({"global_batch_size": 40}, [10, 10], []),
    ],
)
def test_replicas_send_rows_of_large_tables_and_have_the_same_copies(
    make_config: MakeConfig,
    make_loop: MakeLoop,
    changes: dict[str, float],
    rows_sent: list[int],
    rows_that_lag: list[int],
) -> None:
    loop = make_loop(make_config(**FEW_LOOK_UPS | changes))
    replicas = replicas_of(loop)
    assert [count for count in replicas._replicas[0]._exchange.num_look_ups if count] == rows_sent
    assert [part.shape[0] for part in replicas._replicas[0]._look_ups if part.shape[0]] == rows_that_lag
    loop.run_epoch(0)
    assert copies_are_equal(replicas)


@pytest.mark.parametrize("may_differ", [False, True])
def test_where_copies_may_differ_a_call_ends_with_those_of_the_first_replica(
    make_config: MakeConfig, make_loop: MakeLoop, may_differ: bool
) -> None:
    loop = make_loop(make_config(**FEW_LOOK_UPS))
    replicas = replicas_of(loop)
    assert not replicas._copies_may_differ
    replicas._copies_may_differ = may_differ
    table = replicas._replicas[1].saved[0]
    table.assign(table + 1e-3)
    loop.run_epoch(0)
    assert copies_are_equal(replicas) == may_differ


def test_all_variables_can_be_on_a_gpu(make_config: MakeConfig, make_loop: MakeLoop) -> None:
    replica = replicas_of(make_loop(make_config(**FEW_LOOK_UPS)))._replicas[0]
    # "DEFAULT" is what stands for every device that can be added to TensorFlow; GPUs have these kernels in its builds.
    registered = kernels.get_registered_kernels_for_op("VarHandleOp").kernel
    dtypes = {
        allowed
        for kernel in registered
        if kernel.device_type == "DEFAULT"
        for constraint in kernel.constraint
        for allowed in constraint.allowed_values.list.type
    }
    assert tf.float32.as_datatype_enum in dtypes
    assert tf.int32.as_datatype_enum not in dtypes, "int32 would do, too"
    for variable in (*replica.saved, *replica._look_ups, replica._drift):
        assert variable.dtype.as_datatype_enum in dtypes, variable
