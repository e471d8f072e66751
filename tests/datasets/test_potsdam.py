"""ISPRS Potsdam: bands, tiles, colours, classes, the contest's split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from graphseg.datasets.potsdam import SPLIT_OF, Potsdam
from tests.datasets import official_trees as trees

TRAIN = (
    "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 7_9 7_10 7_11 7_12"
)
TEST = "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13"


def label_file(root: Path, name: str = "2_10") -> Path:
    return root / f"5_Labels_for_participants/top_potsdam_{name}_label.tif"


def stitch(reader: Potsdam, name: str, key: str) -> torch.Tensor:
    """The tiles of one image put together again, NaN where there is none."""
    tiles = [(s.window, data[key]) for s, data in zip(reader.samples, reader, strict=True) if s.source.startswith(name)]
    whole = torch.full((*tiles[0][1].shape[:-2], trees.HEIGHT, trees.WIDTH), torch.nan)
    for window, part in tiles:
        assert window is not None
        y, x, h, w = window
        assert part.shape[-2:] == (h, w)
        assert whole[..., y : y + h, x : x + w].isnan().all()
        whole[..., y : y + h, x : x + w] = part
    return whole


def test_split_is_that_of_the_contest() -> None:
    names = {name: [f"{r}_{c}" for (r, c), split in SPLIT_OF.items() if split == name] for name in ("train", "test")}
    assert names == {"train": TRAIN.split(), "test": TEST.split()}


@pytest.mark.parametrize("tile", [12, 10, 7, 1000])
def test_tiles_hold_every_pixel_once(tmp_path: Path, tile: int) -> None:
    trees.write_potsdam(tmp_path)
    reader = Potsdam(tmp_path, split="train", tile=tile)
    whole = Potsdam(tmp_path, split="train", tile=None)
    assert [s.source for s in whole.samples] == ["2_10", "6_7"]
    assert len(reader) == 2 * -(-trees.HEIGHT // tile) * -(-trees.WIDTH // tile)
    for i, name in enumerate(("2_10", "6_7")):
        for key in ("image", "mask"):
            assert torch.equal(stitch(reader, name, key), whole[i][key].float())


def test_tiles_are_200_pixels_by_default(tmp_path: Path) -> None:
    image = np.tile(np.arange(400, dtype=np.uint8)[:, None, None], (1, 600, 4))
    trees.write_tiff(tmp_path / "4_Ortho_RGBIR/top_potsdam_7_9_RGBIR.tif", image, extrasamples=["unspecified"])
    trees.write_tiff(label_file(tmp_path, "7_9"), np.full((400, 600, 3), 255, dtype=np.uint8))
    reader = Potsdam(tmp_path)
    sources = [f"7_9_r{y:04}_c{x:04}" for y in (0, 200) for x in (0, 200, 400)]
    assert [s.source for s in reader.samples] == sources
    assert {tuple(data.image.shape) for data in reader} == {(4, 200, 200)}


@pytest.mark.parametrize(("bands", "channels"), [("RGBIR", [0, 1, 2, 3]), ("RGB", [0, 1, 2]), ("IRRG", [3, 0, 1])])
def test_bands_have_folders_of_their_own(tmp_path: Path, bands: str, channels: list[int]) -> None:
    written = trees.write_potsdam(tmp_path)
    reader = Potsdam(tmp_path, bands=bands, tile=12)
    for data, w in zip(reader, written, strict=True):
        assert np.array_equal(data.image.permute(1, 2, 0).numpy(), w.image[..., channels])
    with pytest.raises(ValueError, match="bands='NIR'"):
        Potsdam(tmp_path, bands="NIR")


def test_infrared_that_is_stored_as_opacity_is_still_infrared(tmp_path: Path) -> None:
    written = trees.write_potsdam(tmp_path)
    for path in tmp_path.glob("4_Ortho_RGBIR/*.tif"):
        image = tifffile.imread(path)
        path.unlink()
        trees.write_tiff(path, image, extrasamples=["unassalpha"])
    for data, w in zip(Potsdam(tmp_path, tile=12), written, strict=True):
        assert np.array_equal(data.image.permute(1, 2, 0).numpy(), w.image)
        assert "valid" not in data


def test_other_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    trees.write_potsdam(tmp_path)
    shutil.copy(
        tmp_path / "2_Ortho_RGB/top_potsdam_2_10_RGB.tif", tmp_path / "4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif"
    )
    with pytest.raises(ValueError, match=r"got 3 channels in .*2_10_RGBIR\.tif, expected 4 \(RGBIR\)"):
        Potsdam(tmp_path, tile=12)[0]


def test_three_classes_are_those_of_iic(tmp_path: Path) -> None:
    written = trees.write_potsdam(tmp_path)
    reader = Potsdam(tmp_path, classes=3, tile=12)
    assert (reader.num_classes, len(reader.class_names)) == (3, 3)
    for data, w in zip(reader, written, strict=True):
        # Roads and cars; buildings and clutter; vegetation and trees.
        assert np.array_equal(data.mask.numpy(), np.array([0, 1, 2, 2, 0, 1])[w.mask])
    with pytest.raises(ValueError, match="classes=5, expected one of 6, 3"):
        Potsdam(tmp_path, classes=5)


@pytest.mark.parametrize("classes", [6, 3])
def test_labels_without_boundaries_have_folders_of_their_own(tmp_path: Path, classes: int) -> None:
    trees.write_potsdam(tmp_path)
    with pytest.raises(FileNotFoundError, match="no_Boundary"):
        Potsdam(tmp_path, boundary=False)
    colors = tifffile.imread(label_file(tmp_path))
    colors[5:9] = 0
    folder = tmp_path / "5_Labels_for_participants_no_Boundary"
    trees.write_tiff(folder / "top_potsdam_2_10_label_noBoundary.tif", colors)
    reader = Potsdam(tmp_path, classes=classes, tile=None, boundary=False)
    assert [s.source for s in reader.samples] == ["2_10"]
    expected = Potsdam(tmp_path, classes=classes, tile=None)[0].mask
    expected[5:9] = 255
    assert torch.equal(reader[0].mask, expected)
    assert [Path(bad.file).name for bad in reader.bad_files] == ["top_potsdam_6_7_RGBIR.tif"]


def test_colours_that_were_stored_with_losses_keep_their_class(tmp_path: Path) -> None:
    trees.write_potsdam(tmp_path)
    expected = Potsdam(tmp_path, tile=None)[0].mask
    colors = tifffile.imread(label_file(tmp_path)).astype(np.int64)
    noise = np.random.default_rng(0).integers(0, 80, colors.shape)
    trees.write_tiff(label_file(tmp_path), np.abs(colors - noise).astype(np.uint8))
    assert torch.equal(Potsdam(tmp_path, tile=None)[0].mask, expected)
    colors[0, :3] = (252, 255, 0), (9, 222, 221), (225, 227, 227)
    trees.write_tiff(label_file(tmp_path), colors.astype(np.uint8))
    assert Potsdam(tmp_path, tile=None)[0].mask[0, :3].tolist() == [4, 2, 0]


@pytest.mark.parametrize("color", [(255, 0, 255), (128, 0, 0), (255, 96, 0), (255, 255, 159)])
def test_colours_of_no_class_are_refused(tmp_path: Path, color: tuple[int, int, int]) -> None:
    trees.write_potsdam(tmp_path)
    colors = tifffile.imread(label_file(tmp_path))
    colors[3, 30:33] = color
    trees.write_tiff(label_file(tmp_path), colors)
    reader = Potsdam(tmp_path, tile=12)
    assert reader[0].mask.max() < 6
    with pytest.raises(ValueError, match=rf"got colour \({', '.join(map(str, color))}\) in .*2_10_label\.tif \(3 pix"):
        reader[2]


def test_test_images_have_masks_only_where_their_labels_are(tmp_path: Path) -> None:
    trees.write_potsdam(tmp_path)
    assert {s.split for s in Potsdam(tmp_path, tile=None).samples} == {"train", "test"}
    shutil.rmtree(tmp_path / "5_Labels_all")
    reader = Potsdam(tmp_path, tile=None)
    assert {s.split for s in reader.samples} == {"train"}
    assert reader.bad_files == []
    tested = Potsdam(tmp_path, split="test", tile=None)
    assert [s.source for s in tested.samples] == ["2_13"]
    assert "mask" not in tested[0]


def test_images_that_are_not_of_the_contest_or_damaged_are_told(tmp_path: Path) -> None:
    trees.write_potsdam(tmp_path)
    folder = tmp_path / "4_Ortho_RGBIR"
    shutil.copy(folder / "top_potsdam_2_10_RGBIR.tif", folder / "top_potsdam_9_9_RGBIR.tif")
    (folder / "top_potsdam_6_7_RGBIR.tif").write_bytes(b"II*\0 and no more")
    reader = Potsdam(tmp_path, tile=12)
    assert {s.source.split("_r")[0] for s in reader.samples} == {"2_10", "2_13"}
    told = {Path(bad.file).name: bad.reason for bad in reader.bad_files}
    assert sorted(told) == ["top_potsdam_6_7_RGBIR.tif", "top_potsdam_9_9_RGBIR.tif"]
    assert "one of the contest's 38" in told["top_potsdam_9_9_RGBIR.tif"]
    assert "expected a TIFF file" in told["top_potsdam_6_7_RGBIR.tif"]


def test_images_of_too_many_pixels_are_not_cut(tmp_path: Path) -> None:
    trees.write_potsdam(tmp_path)
    reader = Potsdam(tmp_path, split="train", tile=12, max_pixels=500)
    assert len(reader) == 0
    assert [bad.reason for bad in reader.bad_files] == [
        "got an image that cannot be cut (got 24 x 36 pixels, expected at most max_pixels=500), expected a TIFF file"
    ] * 2


def test_recipes_tell_all_options_apart(tmp_path: Path) -> None:
    trees.write_potsdam(tmp_path)
    (tmp_path / "5_Labels_for_participants").rename(tmp_path / "5_Labels_for_participants_no_Boundary")
    for path in tmp_path.glob("5_Labels_for_participants_no_Boundary/*.tif"):
        path.rename(path.with_name(path.name.replace("label", "label_noBoundary")))
    trees.write_potsdam(tmp_path)
    options = [{}, {"bands": "RGB"}, {"classes": 3}, {"tile": 12}, {"tile": None}, {"boundary": False}]
    assert len({json.dumps(Potsdam(tmp_path, **option).recipe()) for option in options}) == len(options)  # type: ignore[arg-type]
