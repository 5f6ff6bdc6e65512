"""Measures a bare XLA-compiled NeuMF step: what a loop could reach if batches cost nothing.

The plain textbook model (gather, concatenate, dense layers) and plain Adam on whole tables, float32. The batches are
random and on the device before the clock starts; many steps run in one call of a compiled function. There is no data
set, no drawing of negatives, no evaluation and no checkpoint.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import tensorflow as tf

from benchmarks.shapes import SHAPES, Shape
from benchmarks.throughput import Throughput

_MAX_PREPARED_BATCHES = 64
_EMBEDDING_STDDEV = 0.01
_NUM_INTERVALS = 5


def initial_weights(shape: Shape, rng: np.random.Generator) -> list[tf.Tensor]:
    """Returns user and item table, float32 [rows, num_factors + mlp_layers[0] / 2], then kernels and biases."""
    width = shape.num_factors + shape.mlp_layers[0] // 2
    tables = [rng.normal(0.0, _EMBEDDING_STDDEV, (rows, width)) for rows in (shape.num_users, shape.num_items)]
    sizes = [*itertools.pairwise(shape.mlp_layers), (shape.num_factors + shape.mlp_layers[-1], 1)]
    dense = []
    for fan_in, fan_out in sizes:
        bound = np.sqrt(6.0 / (fan_in + fan_out))
        dense += [rng.uniform(-bound, bound, (fan_in, fan_out)), np.zeros(fan_out)]
    return [tf.constant(values, tf.float32) for values in (*tables, *dense)]


def neumf_logits(
    weights: list[tf.Tensor], num_factors: int, users: tf.Tensor, items: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """Scores pairs.

    Args:
        weights: As `initial_weights` orders them.
        num_factors: Width of the factorization tower.
        users, items: int32 [batch].
        dtype: Of the factors of the matrix products.

    Returns:
        float32 [batch].
    """
    user_table, item_table, *dense = weights
    user_rows, item_rows = tf.gather(user_table, users), tf.gather(item_table, items)
    hidden = tf.concat([user_rows[:, num_factors:], item_rows[:, num_factors:]], axis=1)
    *hidden_layers, output_kernel, output_bias = dense
    for kernel, bias in zip(hidden_layers[::2], hidden_layers[1::2], strict=True):
        product = tf.matmul(tf.cast(hidden, dtype), tf.cast(kernel, dtype))
        hidden = tf.nn.relu(tf.cast(product, tf.float32) + bias)
    factorized = user_rows[:, :num_factors] * item_rows[:, :num_factors]
    return (tf.matmul(tf.concat([factorized, hidden], axis=1), output_kernel) + output_bias)[:, 0]


def compile_steps(
    shape: Shape, weights: list[tf.Variable], batches: tuple[tf.Tensor, tf.Tensor, tf.Tensor], dtype: tf.DType
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the compiled function that takes the first step's number and how many to run.

    Args:
        shape: Widths and Adam's parameters.
        weights: The model's variables, which the function updates.
        batches: Users and items, int32, and labels, float32, each [num_batches, batch]. They are taken in turn.
        dtype: Of the factors of the matrix products.
    """
    first_moments, second_moments = ([tf.Variable(tf.zeros_like(weight)) for weight in weights] for _ in range(2))
    num_batches = batches[0].shape[0]

    def take_step(step: tf.Tensor, total_loss: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        users, items, labels = (tf.gather(column, step % num_batches) for column in batches)
        values = [tf.convert_to_tensor(weight) for weight in weights]
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits = neumf_logits(values, shape.num_factors, users, items, dtype)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, values)]
        time_step = tf.cast(step + 1, tf.float32)
        rate = shape.learning_rate * tf.sqrt(1 - shape.beta2**time_step) / (1 - shape.beta1**time_step)
        moments = zip(first_moments, second_moments, strict=True)
        for weight, gradient, (first, second) in zip(weights, gradients, moments, strict=True):
            first.assign(shape.beta1 * first + (1 - shape.beta1) * gradient)
            second.assign(shape.beta2 * second + (1 - shape.beta2) * tf.square(gradient))
            weight.assign_sub(rate * first / (tf.sqrt(second) + shape.epsilon))
        return step + 1, total_loss + loss

    @tf.function(jit_compile=True)
    def run_steps(first_step: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
        last_step = first_step + num_steps
        _, total_loss = tf.while_loop(lambda step, _: step < last_step, take_step, (first_step, tf.constant(0.0)))
        return total_loss

    return run_steps


def measure_steps(shape: Shape, global_batch_size: int, num_steps: int, dtype: tf.DType) -> Throughput:
    """Compiles, runs a few steps unmeasured and measures the others.

    Args:
        shape: Tables, widths and Adam's parameters.
        global_batch_size: Examples in a step.
        num_steps: Steps of each interval of the clock.
        dtype: Of the factors of the matrix products.

    Raises:
        FloatingPointError: The loss is not finite: the step is wrong.
    """
    rng = np.random.default_rng(1)
    weights = [tf.Variable(weight) for weight in initial_weights(shape, rng)]
    size = (min(num_steps, _MAX_PREPARED_BATCHES), global_batch_size)
    is_positive = rng.random(size) < 1 / (1 + shape.num_train_negatives)
    users, items = (rng.integers(0, rows, size) for rows in (shape.num_users, shape.num_items))
    batches = (tf.constant(users, tf.int32), tf.constant(items, tf.int32), tf.constant(is_positive, tf.float32))
    run_steps = compile_steps(shape, weights, batches, dtype)
    step = max(1, num_steps // _NUM_INTERVALS)
    run_steps(tf.constant(0), tf.constant(step)).numpy()
    durations_s = []
    for _ in range(_NUM_INTERVALS):
        started = time.perf_counter()
        loss = float(run_steps(tf.constant(step), tf.constant(num_steps))) / num_steps
        durations_s.append(time.perf_counter() - started)
        step += num_steps
        if not np.isfinite(loss):
            raise FloatingPointError(f"The mean loss of {num_steps} steps is {loss}.")
    versions = {"tensorflow": tf.__version__}
    return Throughput(shape.name, global_batch_size, num_steps * global_batch_size, durations_s, versions)


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="ml-1m", show_default=True)
@click.option("--batch", type=int, default=4_096, show_default=True, help="Examples in a step.")
@click.option("--examples", type=int, default=20_000_000, show_default=True, help="Examples to measure over, about.")
@click.option("--bfloat16", is_flag=True, help="Multiply matrices in bfloat16.")
@click.option("--output", type=click.Path(path_type=Path), help="A file that takes the figures as JSON.")
def main(shape: str, batch: int, examples: int, bfloat16: bool, output: Path | None) -> None:
    """Measure a bare compiled NeuMF step."""
    dtype = tf.bfloat16 if bfloat16 else tf.float32
    throughput = measure_steps(SHAPES[shape], batch, max(1, round(examples / batch / _NUM_INTERVALS)), dtype)
    click.echo(f"{shape}, batch {batch:,}: {throughput.examples_per_s:,.0f} examples/s")
    if output is not None:
        throughput.write(output)


if __name__ == "__main__":
    main()
