from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torchvision import transforms

from tests.data.pictures import MEAN, STD, picture
from zoo.data.batches import pixels
from zoo.data.batches.draws import BRIGHTNESS, CONTRAST, SATURATION, Box
from zoo.data.batches.maker import resized_crop
from zoo.data.batches.pixels import KERNELS, Normaliser


@pytest.mark.parametrize("planar", [True, False])
def test_normalisation_is_totensor_and_normalize_to_the_bit(planar: bool) -> None:
    images = [np.asarray(picture(seed)) for seed in range(3)]
    own = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    values = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    batch = Normaliser(MEAN, STD)(values.contiguous() if planar else values)
    assert torch.equal(batch, torch.stack([own(Image.fromarray(image)) for image in images]))
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(batch)
    Normaliser(MEAN, STD)(values.contiguous() if planar else values, out=out)
    assert torch.equal(out, batch)


def test_a_normaliser_goes_to_other_processes_without_its_device() -> None:
    normalise = Normaliser(MEAN, STD)
    normalise(torch.zeros(1, 3, 4, 4, device="meta"))
    values = torch.rand(1, 3, 4, 4) * 255
    again = pickle.loads(pickle.dumps(normalise))
    assert torch.equal(again(values.clone()), Normaliser(MEAN, STD)(values))


@pytest.mark.parametrize("interpolation", sorted(KERNELS))
@pytest.mark.parametrize("target", [9, 40])
def test_resampling_is_pillows(interpolation: str, target: int) -> None:
    mode = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    sizes = [(40, 30), (30, 40), (9, 9), (1, 7), (40, 40), (33, 11)]
    canvas = np.random.default_rng(0).integers(0, 256, (len(sizes), 40, 41, 3), dtype=np.uint8)
    flips = [number % 2 == 1 for number in range(len(sizes))]
    made = pixels.resample(
        torch.from_numpy(canvas).permute(0, 3, 1, 2),
        torch.tensor(sizes, dtype=torch.float32),
        torch.tensor(flips),
        (target, target),
        interpolation,
    )
    for number, (rows, columns) in enumerate(sizes):
        crop = canvas[number, :rows, :columns]
        expected = np.asarray(Image.fromarray(crop).resize((target, target), mode)).astype(int)
        expected = expected[:, ::-1] if flips[number] else expected
        assert np.abs(made[number].permute(1, 2, 0).numpy() - expected).max() <= 1
        single = resized_crop(canvas[number], Box(0, 0, rows, columns), (target, target), interpolation)
        single = single.flip(2) if flips[number] else single
        assert np.abs(single.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2


def test_a_crop_of_the_inputs_size_is_copied() -> None:
    image = np.asarray(picture(1, 20, 16))
    box = Box(2, 3, 8, 8)
    for interpolation in ("bicubic", "lanczos"):
        made = resized_crop(image, box, (8, 8), interpolation)
        assert (made.permute(1, 2, 0).numpy() == image[2:10, 3:11]).all()


ENHANCERS = {
    BRIGHTNESS: ImageEnhance.Brightness,
    CONTRAST: ImageEnhance.Contrast,
    SATURATION: ImageEnhance.Color,
}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_colours_change_as_pillow_changes_them(order: tuple[int, ...]) -> None:
    factors = {BRIGHTNESS: 1.4, CONTRAST: 0.7, SATURATION: 1.3}  # strong, so that much is cut off at 255
    image = picture(3, 30, 20)
    expected = image
    for kind in order:
        expected = ENHANCERS[kind](expected).enhance(factors[kind])
    values = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].to(torch.float32)
    changes = torch.tensor([[(kind, factors[kind]) for kind in order]], dtype=torch.float32)
    made = pixels.recolour(values, changes)[0].permute(1, 2, 0).numpy()
    assert np.abs(made - np.asarray(expected).astype(float)).max() <= 1
    assert np.abs(made - np.asarray(expected).astype(float)).mean() < 0.01


def test_each_image_has_its_own_changes() -> None:
    values = torch.randint(256, (3, 3, 8, 8)).to(torch.float32)
    changes = torch.tensor(
        [[(0, 1.2), (1, 0.9), (2, 1.1)], [(2, 0.8), (0, 0.9), (1, 1.2)], [(1, 1.0), (2, 1.0), (0, 1)]]
    )
    whole = pixels.recolour(values.clone(), changes)
    alone = [pixels.recolour(values[row : row + 1].clone(), changes[row : row + 1]) for row in range(3)]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(whole[2], values[2])


def test_grey_images_have_no_saturation_to_change() -> None:
    values = torch.randint(256, (1, 1, 8, 8)).to(torch.float32)
    made = pixels.recolour(values.clone(), torch.tensor([[(float(SATURATION), 1.2)]]))
    assert torch.equal(made, values)


def test_rectangles_are_erased() -> None:
    images = torch.ones(2, 3, 6, 7)
    pixels.erase(images, torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]], dtype=torch.int32))
    expected = torch.ones(3, 6, 7)
    expected[:, 1:4, 2:6] = 0
    assert torch.equal(images[0], expected)
    assert images[1].all()
