"""Where training runs: the distribution strategies."""

import tensorflow as tf


def build_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the strategy of this name.

    "one_device" computes on the first GPU, or else the CPU. "mirrored" keeps a replica on every GPU of this machine,
    or on every (virtual) CPU device where there is no GPU, and sums their gradients in each step.

    Args:
        name: One of `components.train.config.STRATEGIES`.
    """
    if name == "one_device":
        return tf.distribute.get_strategy()
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices(kind)])
