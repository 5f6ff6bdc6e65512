"""What the protocols are, in the words that every page uses."""

# What the held-out item is ranked against, in one line for each protocol of the house.
CANDIDATES_BY_PROTOCOL = {
    "loo-99": "The held-out item among 99 distinct items that the user never saw, drawn at random with a seed.",
    "loo-999-masked": (
        "The held-out item among 999 items drawn at random with replacement, duplicates not counted "
        "(as TensorFlow's official models and MLPerf v0.5 do)."
    ),
    "loo-full": "The held-out item among every item that the user never saw.",
    "fixed": "The held-out item among the candidates listed in the data set's own files.",
}
