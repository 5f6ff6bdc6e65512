"""NeuMF (He et al., "Neural collaborative filtering", WWW 2017): matrix factorization beside a perceptron."""

import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

from components.train.config import TrainConfig

# He et al. (2017), section 4.1: embeddings start from a Gaussian of standard deviation 0.01.
EMBEDDING_STDDEV = 0.01


def neumf_logits(weights: Sequence[tf.Tensor], num_factors: int, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Scores groups of items, each group for one user.

    A user's embedding and its half of the first layer are computed once for the whole group.

    Args:
        weights: Both tables, then kernel and bias of each MLP layer and of the output, as `NeuMF` creates them.
        num_factors: Width of the factorization tower; the rest of a table row is the perceptron's input.
        users: integer [num_groups].
        items: integer [num_groups, group_size].

    Returns:
        float32 [num_groups, group_size], the logits of an interaction.
    """
    user_table, item_table, *dense = weights
    user_rows, item_rows = tf.gather(user_table, users), tf.gather(item_table, items)
    factorized = user_rows[:, None, :num_factors] * item_rows[..., :num_factors]
    user_input, item_input = user_rows[:, num_factors:], item_rows[..., num_factors:]
    *hidden_layers, output_kernel, output_bias = dense
    if hidden_layers:
        kernel, bias = hidden_layers[:2]
        half = user_input.shape[-1]
        user_part = tf.matmul(user_input, kernel[:half]) + bias
        hidden = tf.nn.relu(user_part[:, None] + tf.tensordot(item_input, kernel[half:], 1))
        for kernel, bias in zip(hidden_layers[2::2], hidden_layers[3::2], strict=True):
            hidden = tf.nn.relu(tf.tensordot(hidden, kernel, 1) + bias)
    else:
        hidden = tf.concat([tf.broadcast_to(user_input[:, None], tf.shape(item_input)), item_input], axis=-1)
    return tf.tensordot(tf.concat([factorized, hidden], axis=-1), output_kernel, 1)[..., 0] + output_bias


class NeuMF(keras.Model):
    """One embedding table a side, of width num_factors + mlp_layers[0] / 2, sliced between the towers."""

    def __init__(self, num_users: int, num_items: int, config: TrainConfig) -> None:
        """Creates the variables.

        Args:
            num_users: Rows of the user table.
            num_items: Rows of the item table.
            config: Widths, regularization and the seed of the initial values.
        """
        super().__init__(name="neumf")
        self.num_factors = config.num_factors
        self._mf_regularization = config.mf_regularization
        self._mlp_regularization = config.mlp_regularization[1:]
        seeds = iter(range(config.seed, config.seed + 2 + len(config.mlp_layers)))
        width = config.num_factors + config.mlp_layers[0] // 2
        for name, rows in (("user_embedding", num_users), ("item_embedding", num_items)):
            initializer = keras.initializers.RandomNormal(stddev=EMBEDDING_STDDEV, seed=next(seeds))
            self.add_weight(name=name, shape=(rows, width), initializer=initializer)
        layers = [*config.mlp_layers, 1]
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(layers)):
            is_output = index == len(layers) - 2
            name = "output" if is_output else f"mlp_{index + 1}"
            initializer_type = keras.initializers.LecunUniform if is_output else keras.initializers.GlorotUniform
            fan_in += config.num_factors if is_output else 0
            self.add_weight(
                name=f"{name}_kernel", shape=(fan_in, fan_out), initializer=initializer_type(seed=next(seeds))
            )
            self.add_weight(name=f"{name}_bias", shape=(fan_out,), initializer="zeros")
        self.built = True

    def call(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Scores `items` [num_groups, group_size] for `users` [num_groups]; see `neumf_logits`."""
        return neumf_logits([weight.value for weight in self.weights], self.num_factors, users, items)

    def regularization_loss(self, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the L2 terms, float32 []: factor times the sum of squares, as keras.regularizers.L2 defines it."""
        terms = [
            factor * tf.reduce_sum(tf.square(weight))
            for factor, weight in zip(self._l2_factors(), weights, strict=True)
            if factor
        ]
        return tf.add_n(terms) if terms else tf.constant(0.0)

    def add_regularization_gradients(
        self, gradients: Sequence[tf.Tensor], weights: Sequence[tf.Tensor], share: float
    ) -> list[tf.Tensor]:
        """Adds `share` of the gradient of `regularization_loss`, 2 * factor * weight, to the gradients."""
        return [
            gradient + (2.0 * share * factor) * weight if factor else gradient
            for factor, gradient, weight in zip(self._l2_factors(), gradients, weights, strict=True)
        ]

    def _l2_factors(self) -> list[float]:
        """One factor a weight; the biases and the output layer have none."""
        hidden = [value for factor in self._mlp_regularization for value in (factor, 0.0)]
        return [self._mf_regularization, self._mf_regularization, *hidden, 0.0, 0.0]


class ServingModel(tf.Module):
    """What the SavedModel holds: the weights and two functions over dense indices."""

    def __init__(self, model: NeuMF) -> None:
        """Shares the variables of `model`."""
        super().__init__(name="neumf")
        self._variables = [weight.value for weight in model.weights]
        self._num_factors = model.num_factors

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64, "user_id"), tf.TensorSpec([None], tf.int64, "item_id")]
    )
    def score(self, user_id: tf.Tensor, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `scores`, float32 [n]: the logit of each (user, item) pair."""
        logits = neumf_logits(self._variables, self._num_factors, user_id, item_id[:, None])
        return {"scores": logits[:, 0]}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64, "users"), tf.TensorSpec([None, None], tf.int64, "items")]
    )
    def score_candidates(self, users: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        """Returns float32 [num_users, num_candidates]: the logits of each user's own candidates."""
        return neumf_logits(self._variables, self._num_factors, users, items)
