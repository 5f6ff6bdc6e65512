import keras
import numpy as np
import tensorflow as tf

from benchmarks.bare_step import compile_steps, initial_weights
from benchmarks.shapes import Shape

SHAPE = Shape("small", "default", 30, 20, 4, (8, 6, 3), 0.01, 0.9, 0.99, 1e-7)
NUM_BATCHES, BATCH = 3, 50


def keras_model(weights: list[tf.Tensor]) -> keras.Model:
    """The same model of Keras' layers: an embedding a side, sliced between the towers."""
    user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    width = SHAPE.num_factors + SHAPE.mlp_layers[0] // 2
    rows = [keras.layers.Embedding(SHAPE.num_users, width)(user), keras.layers.Embedding(SHAPE.num_items, width)(item)]
    factorized = keras.layers.Multiply()([row[:, : SHAPE.num_factors] for row in rows])
    hidden = keras.layers.Concatenate()([row[:, SHAPE.num_factors :] for row in rows])
    for units in SHAPE.mlp_layers[1:]:
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    logits = keras.layers.Dense(1)(keras.layers.Concatenate()([factorized, hidden]))
    model = keras.Model([user, item], logits)
    model.set_weights([weight.numpy() for weight in weights])
    return model


def test_five_bare_steps_are_those_of_keras_layers_and_its_adam() -> None:
    rng = np.random.default_rng(3)
    initial = initial_weights(SHAPE, rng)
    size = (NUM_BATCHES, BATCH)
    users, items = rng.integers(0, SHAPE.num_users, size), rng.integers(0, SHAPE.num_items, size)
    labels = (rng.random(size) < 0.2).astype(np.float32)
    weights = [tf.Variable(weight) for weight in initial]
    batches = (tf.constant(users, tf.int32), tf.constant(items, tf.int32), tf.constant(labels))
    compile_steps(SHAPE, weights, batches, tf.float32)(tf.constant(0), tf.constant(5))

    model = keras_model(initial)
    # Keras adds epsilon where the step does: to the root of the moment that is not corrected for its start at 0.
    adam = keras.optimizers.Adam(SHAPE.learning_rate, SHAPE.beta1, SHAPE.beta2, SHAPE.epsilon)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    for step in range(5):
        batch = step % NUM_BATCHES
        with tf.GradientTape() as tape:
            value = loss(labels[batch, :, None], model([users[batch], items[batch]]))
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(value, model.trainable_variables)]
        adam.apply(gradients, model.trainable_variables)
    for weight, expected in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(weight.numpy(), expected, atol=2e-5)
