import math

import numpy as np
import pytest

from components.ncf.errors import InputError
from components.ncf.rank_metrics import check_metric, per_user_values

RANKS = np.array([0, 2, 9, 10])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hr@10", [1, 1, 1, 0]),
        ("recall@3", [1, 1, 0, 0]),
        ("ndcg@3", [1, 1 / 2, 0, 0]),
        ("ndcg@100", [1, 1 / 2, 1 / math.log2(11), 1 / math.log2(12)]),
        ("mrr", [1, 1 / 3, 1 / 10, 1 / 11]),
    ],
)
def test_a_metric_is_found_by_its_name(name: str, values: list[float]) -> None:
    check_metric("gate.metric", name)
    assert per_user_values(name, RANKS).tolist() == pytest.approx(values)


@pytest.mark.parametrize(
    "name", ["", "hr", "hr@", "hr@0", "hr@-1", "hr@1.5", "hr@ten", "HR@10", "hr@10 ", "mrr@10", "auc"]
)
def test_a_name_that_is_no_metric_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=r"^gate\.metric is '.*': it must be hr@K, recall@K or ndcg@K.*, or mrr\.$"):
        check_metric("gate.metric", name)
