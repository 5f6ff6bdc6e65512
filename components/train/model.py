"""NeuMF (He et al., "Neural collaborative filtering", WWW 2017): matrix factorization beside a perceptron."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# He et al. (2017), section 4.1: embeddings start from a Gaussian of standard deviation 0.01.
EMBEDDING_STDDEV = 0.01

# From so many pairs for each item of the catalogue on, a product with the items' whole table is faster than one with a
# row for each pair. It has fewer multiplications from 1 on; measured, the two are even between 1.4 and 1.65.
_TABLE_PAYS_FROM = 1.5

Weights = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Architecture:
    """The shape of a model.

    Each side has one table, of width num_factors + mlp_layers[0] / 2, sliced between the towers.

    Attributes:
        num_users, num_items: Rows of the tables.
        num_factors: Width of the generalized matrix factorization tower; 0 leaves it out.
        mlp_layers: Widths of the perceptron, its input first; empty leaves it out.
        has_output_layer: Whether the towers' outputs are weighed and added up by a last layer; without one, the model
            is plain matrix factorization, whose score is the product of a user's and an item's row.
    """

    num_users: int
    num_items: int
    num_factors: int
    mlp_layers: tuple[int, ...]
    has_output_layer: bool = True

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the embedding tables, which come first among the weights."""
        towers = [name for name, width in (("gmf", self.num_factors), ("mlp", len(self.mlp_layers))) if width]
        return tuple(f"{tower}_{side}_embedding" for tower in towers for side in ("user", "item"))

    def weight_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields name and shape: the tables, kernel and bias of each hidden layer, kernel and bias of the output."""
        for name in self.tables:
            width = self.num_factors if name.startswith("gmf") else self.mlp_layers[0] // 2
            yield name, (self.num_users if "user" in name else self.num_items, width)
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(self.mlp_layers), start=1):
            yield f"mlp_{index}_kernel", (fan_in, fan_out)
            yield f"mlp_{index}_bias", (fan_out,)
        if not self.has_output_layer:
            return
        yield "output_kernel", (self.num_factors + (self.mlp_layers[-1] if self.mlp_layers else 0), 1)
        yield "output_bias", (1,)

    def initial_weights(self, seed: int, embedding_stddev: float = EMBEDDING_STDDEV) -> list[tf.Tensor]:
        """Returns float32 tensors in the order of `weight_shapes`, the same for the same seed."""
        kinds: dict[str, Callable[[int], Any]] = {
            "embedding": lambda s: keras.initializers.RandomNormal(stddev=embedding_stddev, seed=s),
            "output_kernel": lambda s: keras.initializers.LecunUniform(seed=s),
            "kernel": lambda s: keras.initializers.GlorotUniform(seed=s),
            "bias": lambda _: keras.initializers.Zeros(),
        }
        weights = []
        for offset, (name, shape) in enumerate(self.weight_shapes()):
            initializer = next(make for ending, make in kinds.items() if name.endswith(ending))(seed + offset)
            weights.append(tf.convert_to_tensor(initializer(shape, "float32")))
        return weights

    def l2_factors(self, tables: float, mlp: Sequence[float]) -> list[float]:
        """Returns one L2 factor a weight; the biases and the output layer have none.

        Args:
            tables: That of both tables.
            mlp: Those of the hidden layers' kernels.
        """
        return [
            *[tables for _ in self.tables],
            *itertools.chain.from_iterable((factor, 0.0) for factor in mlp),
            *[0.0 for _ in range(2 * self.has_output_layer)],
        ]


def neumf_logits(
    architecture: Architecture,
    weights: Sequence[tf.Tensor],
    users: tf.Tensor,
    items: tf.Tensor,
    precision: str = "float32",
    item_part: tf.Tensor | None = None,
) -> tf.Tensor:
    """Scores groups of items, each group for one user.

    What a group shares is computed once: a user's embedding and its half of the first layer. Where there are clearly
    more pairs than items, the items' half of it is computed once for each item of the catalogue instead of once a pair.

    Args:
        architecture: The shape of the model.
        weights: In the order of `Architecture.weight_shapes`.
        users: integer [num_groups].
        items: integer [num_groups, group_size].
        precision: Of the matrix products' inputs, "float32" or, where XLA compiles, "bfloat16"; sums are float32 in
            any case.
        item_part: What `first_layer_of_items` returned, where these pairs are only part of those that share it; None to
            decide by these pairs.

    Returns:
        float32 [num_groups, group_size], the logits of an interaction.
    """
    tables, dense = weights[: len(architecture.tables)], weights[len(architecture.tables) :]
    if not architecture.has_output_layer:
        user_rows, item_rows = tf.gather(tables[0], users), tf.gather(tables[1], items)
        return tf.reduce_sum(item_rows * user_rows[:, None], axis=-1)
    output_kernel, output_bias = dense[-2:]
    num_factors = architecture.num_factors
    shape = tf.shape(items) if None in items.shape else items.shape
    logits = tf.broadcast_to(output_bias, shape)
    if num_factors:
        user_factors = tf.gather(tables[0], users) * output_kernel[:num_factors, 0]
        logits += tf.reduce_sum(tf.gather(tables[1], items) * user_factors[:, None], axis=-1)
    if architecture.mlp_layers:
        if item_part is None and None not in items.shape:
            item_part = first_layer_of_items(architecture, weights, math.prod(items.shape), precision)
        hidden = _perceptron(architecture, tables[-2:], dense[:-2], users, items, precision, item_part)
        logits += tf.reshape(tf.matmul(hidden, output_kernel[num_factors:]), shape)
    return logits


def first_layer_of_items(
    architecture: Architecture, weights: Sequence[tf.Tensor], num_pairs: int, precision: str = "float32"
) -> tf.Tensor | None:
    """Returns the items' half of the first hidden layer, without the bias, where it pays to share it among the pairs.

    Args:
        architecture: The shape of the model.
        weights: In the order of `Architecture.weight_shapes`.
        num_pairs: How many pairs are to be scored.
        precision: As `neumf_logits` has it.

    Returns:
        float32 [num_items, mlp_layers[1]]; None where there is no such layer, or the pairs are too few.
    """
    if len(architecture.mlp_layers) < 2 or num_pairs <= _TABLE_PAYS_FROM * architecture.num_items:
        return None
    num_tables = len(architecture.tables)
    item_table, kernel = weights[num_tables - 1], weights[num_tables]
    return _matmul(item_table, kernel[architecture.mlp_layers[0] // 2 :], precision)


def neumf_catalogue_logits(architecture: Architecture, weights: Sequence[tf.Tensor], users: tf.Tensor) -> tf.Tensor:
    """Scores every item for each user, without looking up a row of the items' tables for each pair.

    Args:
        architecture: The shape of the model.
        weights: In the order of `Architecture.weight_shapes`.
        users: integer [num_users].

    Returns:
        float32 [num_users, num_items], the same logits as `neumf_logits`.
    """
    tables, dense = weights[: len(architecture.tables)], weights[len(architecture.tables) :]
    if not architecture.has_output_layer:
        return tf.matmul(tf.gather(tables[0], users), tables[1], transpose_b=True)
    output_kernel, output_bias = dense[-2:]
    num_factors = architecture.num_factors
    logits = tf.convert_to_tensor(output_bias)
    if num_factors:
        user_factors = tf.gather(tables[0], users) * output_kernel[:num_factors, 0]
        logits += tf.matmul(user_factors, tables[1], transpose_b=True)
    if architecture.mlp_layers:
        user_rows, item_table = tf.gather(tables[-2], users), tables[-1]
        half = architecture.mlp_layers[0] // 2
        if len(architecture.mlp_layers) == 1:
            kernels = output_kernel[num_factors : num_factors + half], output_kernel[num_factors + half :]
            return logits + tf.matmul(user_rows, kernels[0]) + tf.transpose(tf.matmul(item_table, kernels[1]))
        kernel, bias = dense[:2]
        user_part = tf.matmul(user_rows, kernel[:half]) + bias
        item_part = tf.matmul(item_table, kernel[half:])
        hidden = tf.reshape(tf.nn.relu(user_part[:, None] + item_part), [-1, architecture.mlp_layers[1]])
        hidden = _upper_layers(hidden, dense[2:-2], "float32")
        logits += tf.reshape(tf.matmul(hidden, output_kernel[num_factors:]), [-1, architecture.num_items])
    return logits


def _perceptron(
    architecture: Architecture,
    tables: Sequence[tf.Tensor],
    dense: Sequence[tf.Tensor],
    users: tf.Tensor,
    items: tf.Tensor,
    precision: str,
    item_part: tf.Tensor | None,
) -> tf.Tensor:
    """Returns the last hidden layer, float32 [num_groups * group_size, width]."""
    user_table, item_table = tables
    user_rows, flat_items = tf.gather(user_table, users), tf.reshape(items, [-1])
    group_size = tf.shape(items)[1] if items.shape[1] is None else items.shape[1]
    if not dense:
        return tf.concat([tf.repeat(user_rows, group_size, axis=0), tf.gather(item_table, flat_items)], axis=1)
    kernel, bias = dense[:2]
    half, width = architecture.mlp_layers[0] // 2, architecture.mlp_layers[1]
    user_part = _matmul(user_rows, kernel[:half], precision) + bias
    if item_part is None:
        pairs_part = _matmul(tf.gather(item_table, flat_items), kernel[half:], precision)
    else:
        pairs_part = tf.gather(item_part, flat_items)
    hidden = tf.nn.relu(user_part[:, None] + tf.reshape(pairs_part, [-1, group_size, width]))
    return _upper_layers(tf.reshape(hidden, [-1, width]), dense[2:], precision)


def _upper_layers(hidden: tf.Tensor, dense: Sequence[tf.Tensor], precision: str) -> tf.Tensor:
    for kernel, bias in zip(dense[::2], dense[1::2], strict=True):
        hidden = tf.nn.relu(_matmul(hidden, kernel, precision) + bias)
    return hidden


def _matmul(a: tf.Tensor, kernel: tf.Tensor, precision: str) -> tf.Tensor:
    """Returns a @ kernel in float32, from inputs that are rounded to `precision` first; its gradients likewise."""
    if precision != "float32":
        return _bfloat16_matmul(a, kernel)
    # Of the transposed kernel, the gradient is a transposed product, which on a processor takes half the time where the
    # kernel is narrow. The axis in front keeps XLA from folding the transposition into the product.
    return tf.matmul(a, tf.transpose(kernel[None], [0, 2, 1])[0], transpose_b=True)


@tf.custom_gradient
def _bfloat16_matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    # The products ask for float32 out of bfloat16 inputs, which a processor with bfloat16 instructions multiplies twice
    # as fast as float32; with a bfloat16 output it is slower (measured).
    a, b = tf.cast(a, tf.bfloat16), tf.cast(b, tf.bfloat16)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        upstream = tf.cast(upstream, tf.bfloat16)
        return (
            tf.matmul(upstream, b, transpose_b=True, output_type=tf.float32),
            tf.matmul(a, upstream, transpose_a=True, output_type=tf.float32),
        )

    return tf.matmul(a, b, output_type=tf.float32), gradient


def build_keras_model(architecture: Architecture, weights: Sequence[NDArray[np.float32]]) -> keras.Model:
    """Returns the same model out of Keras' own layers: it loads and trains without this project.

    Inputs are `user_id` and `item_id`, integer [batch, 1]; the output is the logit, float32 [batch, 1].

    Args:
        architecture: The shape of the model.
        weights: In the order of `Architecture.weight_shapes`.
    """
    named = dict(zip((name for name, _ in architecture.weight_shapes()), weights, strict=True))
    inputs = [keras.Input((1,), dtype="int32", name=name) for name in ("user_id", "item_id")]

    def layer_with(layer: keras.layers.Layer, values: list[NDArray[np.float32]], inputs: Any) -> keras.KerasTensor:
        output = layer(inputs)
        layer.set_weights(values)
        return output

    def look_up(tower: str) -> list[keras.KerasTensor]:
        rows = []
        for side, ids in zip(("user", "item"), inputs, strict=True):
            table = named[f"{tower}_{side}_embedding"]
            layer = keras.layers.Embedding(*table.shape, name=f"{tower}_{side}_embedding")
            rows.append(keras.layers.Flatten()(layer_with(layer, [table], ids)))
        return rows

    if not architecture.has_output_layer:
        return keras.Model(inputs, keras.layers.Dot(axes=1, name="logit")(look_up("gmf")), name="neumf")
    towers = []
    if architecture.num_factors:
        towers.append(keras.layers.Multiply(name="gmf")(look_up("gmf")))
    if architecture.mlp_layers:
        hidden = keras.layers.Concatenate(name="mlp_input")(look_up("mlp"))
        for index, width in enumerate(architecture.mlp_layers[1:], start=1):
            layer = keras.layers.Dense(width, activation="relu", name=f"mlp_{index}")
            hidden = layer_with(layer, [named[f"mlp_{index}_kernel"], named[f"mlp_{index}_bias"]], hidden)
        towers.append(hidden)
    fused = keras.layers.Concatenate(name="neumf")(towers) if len(towers) > 1 else towers[0]
    logit = layer_with(keras.layers.Dense(1, name="logit"), list(weights[-2:]), fused)
    return keras.Model(inputs, logit, name="neumf")
