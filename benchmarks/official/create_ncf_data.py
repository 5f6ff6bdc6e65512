"""Runs the TensorFlow official models' `create_ncf_data` on ratings that are not MovieLens. Needs their environment.

Their generator takes a data set only if it has as many users and items as a table of theirs says; here the table says
what the file has. All else is theirs: the flags, the code, the files.
"""

from absl import app, flags
from official.recommendation import create_ncf_data, movielens  # type: ignore[import-not-found]

_NUM_USERS = flags.DEFINE_integer("num_users", None, "Users in ml-20m/ratings.csv of the data folder.", required=True)
_NUM_ITEMS = flags.DEFINE_integer("num_items", None, "Items in it.", required=True)


def main(argv: list[str]) -> None:
    """Runs their main function."""
    movielens.DATASET_TO_NUM_USERS_AND_ITEMS["ml-20m"] = (_NUM_USERS.value, _NUM_ITEMS.value)
    create_ncf_data.main(argv)


if __name__ == "__main__":
    app.run(main)
