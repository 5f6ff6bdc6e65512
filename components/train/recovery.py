"""What a process does when the others that train with it are gone: it starts itself again from the last checkpoint."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from components.ncf.errors import InputError
from components.train.strategy import Cluster

_LOG = logging.getLogger(__name__)

_RESTARTS = "NEUMF_TRAIN_RESTARTS"
_MAX_RESTARTS = 10
# How TensorFlow reports a peer that died, hangs or has begun anew.
_LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError, tf.errors.InternalError,
)  # fmt: skip


@contextmanager
def restarting_when_the_cluster_is_lost(cluster: Cluster | None) -> Iterator[None]:
    """Runs the block; if other processes of the cluster are lost meanwhile, replaces this process by itself.

    The collectives of a cluster that lost a member cannot be mended inside the process. Whatever started the lost
    worker starts it again, this process executes its own command line again, they find each other, and all go on from
    the last checkpoint.

    Raises:
        InputError: That was tried too often.
    """
    try:
        yield
    except _LOST as error:
        if cluster is None:
            raise
        restarts = int(os.environ.get(_RESTARTS, "0")) + 1
        reason = type(error).__name__
        if restarts > _MAX_RESTARTS:
            raise InputError(
                f"The rest of the cluster was lost {restarts} times ({reason}): see the logs of its processes and "
                "start all of them again; they go on from the last checkpoint."
            ) from error
        _LOG.warning("lost the rest of the cluster (%s): starting again from the last checkpoint", reason)
        os.environ[_RESTARTS] = str(restarts)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
