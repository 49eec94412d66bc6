from __future__ import annotations

import pytest
import timm
import torch

from zoo.errors import RunError
from zoo.models import heads
from zoo.tasks.schema import Task

TASKS = (
    Task("a", "single-label", ("x", "y")),
    Task("b", "regression", mean=5.0, std=3.0),
    Task("c", "multi-label", ("z",)),
)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_efficientnet"])
@torch.no_grad()
def test_scales_and_tasks_are_rows_of_the_head(architecture):
    model = timm.create_model(architecture, num_classes=4).eval()
    images = torch.randn(2, *model.pretrained_cfg["input_size"])
    before = model(images)
    heads.require(model, TASKS)
    heads.put_scales(model, TASKS)
    after = model(images)
    assert torch.allclose(after[:, 2], before[:, 2] * 3 + 5, atol=1e-4)
    assert torch.allclose(after[:, [0, 1, 3]], before[:, [0, 1, 3]])
    small = heads.one_task(model, TASKS, "b")
    assert small.num_classes == 1 and torch.allclose(small(images), after[:, 2:3], atol=1e-4)
    assert model.num_classes == 4


@torch.no_grad()
def test_what_else_a_head_has_stays_with_one_task():
    """LeViT's heads have a norm each, and it averages two of them."""
    model = timm.create_model("levit_128s", num_classes=4).eval()
    for head in (model.head, model.head_dist):
        head.bn.running_mean.normal_()
        head.bn.running_var.uniform_(0.5, 2)
    images = torch.randn(2, 3, 224, 224)
    small = heads.one_task(model, TASKS, "a")
    assert small.num_classes == 2 and small.head.linear.out_features == 2
    assert torch.allclose(small(images), model(images)[:, :2], atol=1e-5)


def test_a_head_that_is_none_is_refused():
    model = timm.create_model("test_resnet", num_classes=4)
    model.fc = torch.nn.Identity()
    heads.require(model, (Task("a", "multi-label", ("w", "x", "y", "z")),))  # which needs no rows
    with pytest.raises(RunError, match="not a linear layer"):
        heads.require(model, TASKS)
    model = timm.create_model("test_resnet", num_classes=4)
    model.fc = torch.nn.Linear(model.num_features, 4, bias=False)
    heads.require(model, (Task("a", "multi-label", ("w", "x", "y", "z")), Task("b", "multi-label", ("v",))))
    with pytest.raises(RunError, match="has no bias"):
        heads.require(model, TASKS)
