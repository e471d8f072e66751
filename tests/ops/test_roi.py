"""Regions of interest against a flood fill over cells and scipy's components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from graphseg.ops.roi import find_rois
from tests.reference import instances as reference


def foreground(*places, size=(100, 130)):
    """bool [1, H, W], True at each (y, x)."""
    found = torch.zeros(1, *size, dtype=torch.bool)
    for y, x in places:
        found[0, y, x] = True
    return found


def test_one_pixel_at_a_time():
    # Cells of 32 and 16 pixels around them, cut off at the border.
    for place, box in [
        ((0, 0), [0, 0, 48, 48]),
        ((31, 31), [0, 0, 48, 48]),
        ((32, 31), [0, 16, 48, 80]),
        ((40, 70), [48, 16, 112, 80]),
        ((99, 129), [112, 80, 130, 100]),
        ((0, 129), [112, 0, 130, 48]),
    ]:
        rois = find_rois(foreground(place))
        assert rois.box.tolist() == [box]
        assert rois.image.tolist() == [0]
        x0, y0, x1, y1 = box
        assert rois.area[0, y0:y1, x0:x1].eq(1).all()
        assert int(rois.area.sum()) == (y1 - y0) * (x1 - x0)


def test_cells_that_touch_at_a_corner_are_one_region():
    assert len(find_rois(foreground((0, 0), (32, 32))).box) == 1
    assert len(find_rois(foreground((32, 0), (0, 63))).box) == 1
    apart = find_rois(foreground((0, 0), (0, 64)))
    assert apart.box.tolist() == [[0, 0, 48, 48], [48, 0, 112, 48]]
    assert apart.area[0, 0, [0, 47, 48, 111, 112]].tolist() == [1, 1, 2, 2, 0]


def test_batch_is_its_images_and_empty_ones_have_no_region():
    images = torch.cat([foreground(), foreground((0, 0), (99, 99)), foreground(), foreground((50, 50))])
    together = find_rois(images)
    assert together.image.tolist() == [1, 1, 3]
    singles = [find_rois(image[None]) for image in images]
    assert torch.equal(together.box, torch.cat([s.box for s in singles]))
    start = 0
    for area, single in zip(together.area, singles, strict=True):
        assert torch.equal(area, single.area[0].add(start).where(single.area[0] > 0, 0))
        start += len(single.box)
    assert find_rois(images[:1]).box.shape == (0, 4)
    assert find_rois(images[:0]).area.shape == (0, 100, 130)


@given(st.data())
def test_equal_to_a_flood_fill(data):
    H, W, cell = (data.draw(st.integers(1, n)) for n in (9, 9, 4))
    margin = data.draw(st.integers(0, cell // 2))
    image = data.draw(st.lists(st.booleans(), min_size=H * W, max_size=H * W))
    mask = torch.tensor(image).view(1, H, W)
    rois = find_rois(mask, cell, margin)
    boxes, area = reference.regions(mask[0].tolist(), cell, margin)
    assert [tuple(box) for box in rois.box.tolist()] == boxes
    assert rois.area[0].tolist() == area
    assert (rois.area[mask] > 0).all()


def test_equal_to_scipy(device):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 300, 500, generator=generator) < 2e-3
    rois = find_rois(mask.to(device), 10, 0)
    for image in range(3):
        cells = mask[image].view(30, 10, 50, 10).numpy().any((1, 3))
        labels, count = ndimage.label(cells, np.ones((3, 3)))
        number = rois.area[image, ::10, ::10].cpu().numpy()
        assert int((rois.image == image).sum()) == count > 20
        assert np.array_equal(np.where(number > 0, number - (number[number > 0].min() - 1), 0), labels)
        slices = [
            [s[1].start * 10, s[0].start * 10, s[1].stop * 10, s[0].stop * 10] for s in ndimage.find_objects(labels)
        ]
        assert rois.box[rois.image == image].tolist() == slices


def test_wide_margins_leave_every_pixel_its_own_cell():
    mask = foreground((0, 0), (0, 64))
    rois = find_rois(mask, 32, 60)
    assert rois.box.tolist() == [[0, 0, 92, 92], [4, 0, 130, 92]]
    assert rois.area[0, 0, [0, 31, 32, 63, 64, 129]].tolist() == [1, 1, 2, 2, 2, 2]


def test_bad_input_is_refused():
    mask = foreground()
    with pytest.raises(TypeError, match=r"float32 for foreground, expected torch\.bool"):
        find_rois(mask.float())
    with pytest.raises(ValueError, match=r"shape \[100, 130\] for foreground, expected \[\*, \*, \*\]"):
        find_rois(mask[0])
    with pytest.raises(ValueError, match="cell_size=0"):
        find_rois(mask, 0)
    with pytest.raises(ValueError, match="margin=-1"):
        find_rois(mask, 32, -1)
