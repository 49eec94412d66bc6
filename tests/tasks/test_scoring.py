"""What outputs are worth where answers are missing."""

from __future__ import annotations

import math

import pytest
import torch

from zoo.errors import DataError
from zoo.tasks.outputs import Outputs
from zoo.tasks.schema import Task
from zoo.tasks.scoring import measured, scores_of

NAN = math.nan
AGE, SIZE = Task("age", "regression"), Task("size", "ordinal", ("low", "middle", "high"))


@pytest.mark.parametrize("tasks", [(AGE,), (AGE, SIZE)])
def test_images_that_answer_nothing_are_nothing_to_measure_by(tasks):
    outputs = Outputs(torch.zeros(3, sum(task.outputs for task in tasks)), torch.full((3, len(tasks)), NAN))
    with pytest.raises(DataError) as caught:
        measured(outputs, tasks, ["a", "b", "c"])
    names = ", ".join(task.name for task in tasks)
    assert caught.value.what == f"none of the 3 images to measure on has a target for {names}"
    assert "empty" in caught.value.why and "fill some of them in" in caught.value.fix


def test_a_task_that_no_image_answers_is_left_out():
    outputs = Outputs(torch.zeros(3, 3), torch.tensor([[1.0, NAN], [2.0, NAN], [NAN, NAN]]))
    result = measured(outputs, (AGE, SIZE), ["a", "b", "c"])
    assert [*result["tasks"]] == ["age"] and result["n"] == 3 and result["tasks"]["age"]["n"] == 2
    assert "score of size" not in scores_of((AGE, SIZE))(outputs)
