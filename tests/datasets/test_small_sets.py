"""Readers of small public sets: what they read is what the files hold, in every split; broken sets are named."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.io import imread
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from graphseg.datasets.small_sets import BSDS500, DSB2018, ISBI2012, MSRC21, CamVid, PennFudan, Sentinel2
from graphseg.transforms import RandomImageFlip, ToPixelGrid, ToSuperpixelRAG

# Folder of each set, and how many images there are of train, val and test_dev.
SETS = {
    BSDS500: ("bsds500", (200, 100, 100)),
    CamVid: ("camvid", (367, 101, 133)),
    MSRC21: ("msrc21", (274, 58, 161)),
    DSB2018: ("dsb2018", (402, 49, 54)),
    PennFudan: ("penn_fudan", (96, 15, 24)),
    ISBI2012: ("isbi2012_em", (15, 5, 0)),
    Sentinel2: ("sentinel2_rgbnir", (101, 24, 49)),
}
RARE = (5, 8)  # horse and mountain in MSRC-21


# Files read without graphseg


def read_set(root, reader):
    """Split, source and arrays of the files of every line of splits.txt, as functions that open them."""
    for line in (root / "splits.txt").read_text().splitlines()[1:]:
        split, *cells = line.split("\t")
        yield split, Path(cells[0]).stem, lambda cells=cells: expected(reader, root, cells)


def expected(reader, root, cells):
    """The fields that one line stands for, as arrays."""
    image = open_image(root / cells[0])
    if reader is BSDS500:
        maps = [imread(root / path).astype(np.int64) for path in cells[1].split(";")]
        return {"image": image, "annotations": np.stack(maps + [np.full_like(maps[0], -1)] * (9 - len(maps)))}
    if reader is Sentinel2:
        image = np.concatenate([image, imread(root / cells[1])[None]])
        return {"image": image, "mask": imread(root / cells[2])}
    if reader is ISBI2012:
        return {"image": image[:1], "mask": imread(root / cells[1]) // 255, "instances": imread(root / cells[2])}
    labels = imread(root / cells[1])
    if reader is CamVid:
        return {"image": image, "mask": labels}
    if reader is MSRC21:
        order = {code: i for i, code in enumerate(c for c in range(1, 24) if c not in RARE)}
        return {"image": image, "mask": np.vectorize(lambda code: order.get(code, 255))(labels)}
    return {"image": image, "mask": labels != 0, "instances": labels}


def open_image(path):
    """[3, H, W], grey images in colour."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB")).transpose(2, 0, 1)


def assert_fields(data, want):
    assert set(data.keys()) == {*want, "source"}
    for key, value in want.items():
        assert data[key].shape == value.shape and np.array_equal(data[key].numpy(), value), key


# The real sets


@pytest.fixture(params=SETS, ids=lambda reader: reader.__name__)
def real(request, shared_data):
    """A reader's class and the folder of its set."""
    return request.param, find_set(shared_data, request.param)


def find_set(folder, reader):
    root = folder / SETS[reader][0]
    if not root.is_dir():
        pytest.skip(f"no data set in {root}")
    return root


def test_every_split_is_there(real):
    reader, root = real
    whole = reader(root)
    counts = SETS[reader][1]
    listed = list(read_set(root, reader))
    assert len(whole) == sum(counts) and whole.bad_files == []
    assert [(s.split, s.source) for s in whole.samples] == [(split, source) for split, source, _ in listed]
    for split, count in zip(("train", "val", "test_dev"), counts, strict=True):
        if count == 0:
            with pytest.raises(ValueError, match=f"got split '{split}', expected one of train, val"):
                reader(root, split)
            continue
        part = reader(root, split)
        assert len(part) == len(whole.split(split)) == count
        assert [s.source for s in part.samples] == [source for name, source, _ in listed if name == split]
        assert {s.split for s in part.samples} == {split}


def test_images_and_maps_are_the_files(real):
    reader, root = real
    listed = list(read_set(root, reader))
    whole = reader(root)
    for split in {split for split, _, _ in listed}:
        places = [i for i, row in enumerate(listed) if row[0] == split]
        part = reader(root, split)
        for place in (0, len(places) // 2, len(places) - 1):
            _, source, read = listed[places[place]]
            data = whole[places[place]]
            want = read()
            assert data.source == source
            assert_fields(data, want)
            assert_fields(part[place], want)
            assert data.image.dtype == torch.uint8
            K = whole.num_classes
            if K is not None:
                assert data.mask.dtype == torch.int64
                assert set(data.mask.unique().tolist()) <= {*range(K), whole.ignore_index}
                graph = ToPixelGrid(num_classes=K, ignore_index=whole.ignore_index)(data)
                assert graph.validate() and torch.equal(graph.pixel_y, data.mask.flatten())


def read_names(root, left_out):
    rows = [line.split() for line in (root / "classes.txt").read_text().splitlines()]
    return tuple(name for _, name in rows if name not in left_out)


def test_classes_of_the_sets(real):
    reader, root = real
    found = reader(root)
    names = {
        BSDS500: lambda: (),
        CamVid: lambda: read_names(root, ["void"]),
        MSRC21: lambda: read_names(root, ["void", "horse", "mountain"]),
        DSB2018: lambda: ("background", "nucleus"),
        PennFudan: lambda: ("background", "person"),
        ISBI2012: lambda: ("cell", "membrane"),
        Sentinel2: lambda: read_names(root, ["undefined"]),
    }[reader]()
    assert found.class_names == names
    assert found.num_classes == (len(names) or None)
    assert found.ignore_index == {CamVid: 11, MSRC21: 255, Sentinel2: 255}.get(reader)


def test_msrc_with_all_classes_and_regions(shared_data):
    root = find_set(shared_data, MSRC21)
    usual, every = MSRC21(root), MSRC21(root, classes=23, regions=True)
    assert every.num_classes == 23 and {"horse", "mountain"} == set(every.class_names) - set(usual.class_names)
    rare = 0
    for i in range(0, len(every), 9):
        files, data, fewer = every.samples[i].files, every[i], usual[i].mask
        codes = imread(root / "labels" / f"{data.source}.png")
        assert np.array_equal(data.mask, np.where(codes == 0, 255, codes.astype(int) - 1))
        assert np.array_equal(data.segments, imread(files["segments"]))
        assert np.array_equal(fewer == 255, (codes == 0) | np.isin(codes, RARE))
        rare += np.isin(codes, RARE).sum()
        for k, name in enumerate(usual.class_names):
            assert torch.equal(fewer == k, data.mask == every.class_names.index(name))
    assert rare > 0 and "segments" not in usual[0]


def test_grey_and_colour_nuclei_have_three_channels(shared_data):
    root = find_set(shared_data, DSB2018)
    reader, modes = DSB2018(root), set()
    for i in range(0, len(reader), 20):
        with Image.open(reader.samples[i].files["image"]) as image:
            modes.add(image.mode)
        assert reader[i].image.shape[0] == 3
    assert modes == {"L", "RGB"}


def test_one_annotator_of_bsds(shared_data):
    root = find_set(shared_data, BSDS500)
    whole = BSDS500(root)
    assert whole.num_annotators == 9 == whole[0].annotations.shape[0]
    for k in (0, 3):
        reader = BSDS500(root, "val", annotator=k)
        assert len(reader) == 100 and set(reader.samples[0].files) == {"image", "segments"}
        data = reader[50]
        assert "annotations" not in data and torch.equal(data.segments, whole.split("val")[50].annotations[k])
    fewer = [s for s in whole.samples if len(s.files) - 1 < 6]
    sixth = BSDS500(root, annotator=5)
    assert len(sixth) == 400 - len(fewer)
    assert [Path(bad.file).stem for bad in sixth.bad_files] == [s.source for s in fewer]
    with pytest.raises(ValueError, match="got annotator=9, expected one of 0, 1"):
        BSDS500(root, annotator=9)


def test_annotations_of_images_on_either_side_batch(shared_data):
    root = find_set(shared_data, BSDS500)
    reader = BSDS500(root, "train", Compose([RandomImageFlip(1.0), ToSuperpixelRAG(50)]))
    sizes = {tuple(reader.read(s).image.shape[1:]): i for i, s in enumerate(reader.samples[:20])}
    assert set(sizes) == {(321, 481), (481, 321)}
    graphs = [reader[i] for i in sizes.values()]
    batch = Batch.from_data_list(graphs)
    assert batch.validate() and batch.annotations.shape == (2 * 321 * 481, 9)
    for graph, want, i in zip(batch.to_data_list(), graphs, sizes.values(), strict=True):
        assert torch.equal(graph.annotations, want.annotations)
        maps = reader.read(reader.samples[i]).annotations.flip(-1)  # [9, H, W]
        assert torch.equal(graph.annotations.long(), maps.flatten(1).T)


# Small sets of the same layout


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


COLUMNS = {
    BSDS500: ("images/{}.jpg", "labels/{}_a0.png;labels/{}_a1.png"),
    CamVid: ("images/{}.jpg", "labels/{}.png"),
    MSRC21: ("images/{}.jpg", "labels/{}.png", "regions/{}.png"),
    DSB2018: ("images/{}.png", "labels/{}.png", "fluo", "27"),
    PennFudan: ("images/{}.jpg", "labels/{}.png", "2", "0"),
    ISBI2012: ("images/{}.png", "membrane/{}.png", "labels/{}.png", "136"),
    Sentinel2: ("rgb/{}.png", "nir/{}.png", "labels/{}.png", "4", "4"),
}
CLASSES = {
    CamVid: "0 sky\n1 building\n2 void\n",
    MSRC21: "0 void\n1 building\n2 horse\n3 tree\n4 mountain\n",
    Sentinel2: "0 built_up\n1 vegetation\n2 water\n255 undefined\n",
}
NAMES = {"train": ["a", "b", "c"], "val": ["d"], "test_dev": ["e", "f"]}


def write_set(root, reader, size=(6, 8)):
    """A set of six small images in the layout of `reader`."""
    random = np.random.default_rng(0)
    lines = ["# split\timage\tlabels"]
    for split, names in NAMES.items():
        for name in names:
            cells = [cell.replace("{}", name) for cell in COLUMNS[reader]]
            lines.append("\t".join([split, *cells]))
            for path in ";".join(cells).split(";"):
                grey = path.startswith(("labels", "regions", "membrane", "nir")) or reader is ISBI2012
                values = random.integers(0, 3, size) if grey else random.integers(0, 256, (*size, 3))
                values = values % 2 * 255 if path.startswith("membrane") else values
                if "/" in path:
                    write(root / path, values.astype(np.uint8))
    (root / "splits.txt").write_text("\n".join(lines) + "\n")
    if reader in CLASSES:
        (root / "classes.txt").write_text(CLASSES[reader])
    return root


@pytest.fixture(params=SETS, ids=lambda reader: reader.__name__)
def small(request, tmp_path):
    """A reader's class and the folder of a small set of its layout."""
    return request.param, write_set(tmp_path, request.param)


def add_line(root, line):
    with (root / "splits.txt").open("a") as file:
        file.write(line + "\n")


def test_small_sets_are_read(small):
    reader, root = small
    whole = reader(str(root))
    assert [s.source for s in whole.samples] == list("abcdef") and not whole.bad_files
    for split, names in NAMES.items():
        assert [data.source for data in reader(root, split)] == names
        assert [data.source for data in whole.split(split)] == names
    for data in whole:
        assert data.image.shape == ({ISBI2012: 1, Sentinel2: 4}.get(reader, 3), 6, 8)
        if whole.num_classes is not None:
            ToPixelGrid(num_classes=whole.num_classes, ignore_index=whole.ignore_index)(data)


def test_slices_copies_and_single_samples(small):
    reader, root = small
    whole = reader(root)
    for other in (pickle.loads(pickle.dumps(whole)), whole[:], reader(root, transform=lambda data: data)):
        for got, want in zip(other, whole, strict=True):
            assert_fields(got, {key: value.numpy() for key, value in want if key != "source"})
    one = whole.split("test_dev").single(1)
    assert len(one) == 1 and one[0].source == "f" and torch.equal(one[0].image, whole[5].image)
    assert [data.source for data in whole[1:3]] == ["b", "c"]


def test_loader_with_workers_on_the_fly(small):
    reader, root = small
    known = reader(root)
    convert = ToPixelGrid(num_classes=known.num_classes, ignore_index=known.ignore_index)
    transform = Compose([RandomImageFlip(), convert])
    loader = DataLoader(reader(root, "train", transform), batch_size=3, num_workers=2)
    (batch,) = list(loader)
    assert batch.validate() and batch.source == ["a", "b", "c"] and batch.num_pixels == 3 * 48


def test_blank_lines_comments_and_line_ends(small):
    reader, root = small
    text = (root / "splits.txt").read_text()
    (root / "splits.txt").write_bytes(("\n# more\n" + text + "\n\n").replace("\n", "\r\n").encode())
    assert len(reader(root)) == 6 and not reader(root).bad_files


def test_lines_without_their_file_are_bad_files(small):
    reader, root = small
    sample = reader(root).samples[1]
    for role, path in list(sample.files.items()):
        path.rename(path.with_name("elsewhere"))
        found = reader(root)
        assert [s.source for s in found.samples] == list("acdef")
        assert [bad.file for bad in found.bad_files] == [str(path)]
        assert found.bad_files[0].reason == f"got no such file for {role}, expected one (splits.txt, line 3)"
        assert not reader(root, "val").bad_files  # of another split
        path.with_name("elsewhere").rename(path)
    assert len(reader(root)) == 6


@pytest.mark.parametrize("path", ["../{}", "images/../../{}", "{folder}/{}"])
def test_paths_stay_inside_the_folder(small, path):
    reader, root = small
    outside = write(root.parent / "outside.png", np.zeros((6, 8, 3), np.uint8))
    name = path.format("outside.png", folder=outside.parent)
    cells = [cell.format("a", "a") for cell in COLUMNS[reader]]
    columns = [c for c in range(len(cells)) if "/" in cells[c] and "regions" not in cells[c]]  # the files that are read
    for c in columns:
        add_line(root, "\t".join(["train", *cells[:c], name, *cells[c + 1 :]]))
    found = reader(root)
    assert len(found) == 6 and len(found.bad_files) == len(columns)
    for bad in found.bad_files:
        assert "expected a path inside the folder (splits.txt, line " in bad.reason and repr(name) in bad.reason
    assert all(root in file.parents for s in found.samples for file in s.files.values())


def test_short_lines_are_bad_files(small):
    reader, root = small
    add_line(root, "train")
    add_line(root, "train\t" + COLUMNS[reader][0].format("a"))
    found = reader(root)
    assert len(found) == 6 and len(found.bad_files) >= 2
    assert all("expected a file (splits.txt, line " in bad.reason for bad in found.bad_files)


def test_missing_layouts_are_named(small):
    reader, root = small
    with pytest.raises(FileNotFoundError, match=r"got no .*nowhere, expected a folder with splits\.txt \(split, "):
        reader(root / "nowhere")
    if reader in CLASSES:
        (root / "classes.txt").rename(root / "kept")
        with pytest.raises(FileNotFoundError, match=r"classes\.txt, expected a folder with splits\.txt \(split, "):
            reader(root)
        (root / "kept").rename(root / "classes.txt")
    (root / "splits.txt").rename(root / "kept")
    with pytest.raises(FileNotFoundError, match=r"splits\.txt, expected a folder with splits\.txt \(split, "):
        reader(root)
    (root / "kept").rename(root / "splits.txt")
    folder = COLUMNS[reader][0].split("/")[0]
    (root / folder).rename(root / "kept")
    with pytest.raises(FileNotFoundError, match=rf"got no image in .*, expected splits\.txt .*{folder}/.*no such file"):
        reader(root)
    (root / "splits.txt").write_text("# split\timage\tlabels\n")
    with pytest.raises(FileNotFoundError, match=r"got no image in .*is empty"):
        reader(root)


def test_unknown_splits_are_refused(small):
    reader, root = small
    for call in (lambda: reader(root, "test"), lambda: reader(root).split("test")):
        with pytest.raises(ValueError, match="got split 'test', expected one of test_dev, train, val"):
            call()


def test_an_image_twice_is_refused(small):
    reader, root = small
    add_line(root, (root / "splits.txt").read_text().splitlines()[1])
    with pytest.raises(ValueError, match="got two images named 'a'"):
        reader(root)


def test_maps_of_another_size_are_refused_by_name(small):
    reader, root = small
    sample = reader(root).samples[0]
    for path in list(sample.files.values())[1:]:
        kept = path.read_bytes()
        write(path, np.zeros((8, 6), np.uint8))
        with pytest.raises(ValueError, match=f"{path.name}: got 8 x 6 pixels, expected its image's 6 x 8"):
            reader(root)[0]
        path.write_bytes(kept)
    reader(root)[0]


def test_labels_outside_the_classes_are_refused(tmp_path):
    root = write_set(tmp_path, MSRC21)
    write(root / "labels" / "b.png", np.full((6, 8), 5, np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: got label 5, expected 0 to 4"):
        MSRC21(root)[1]
    root = write_set(tmp_path / "camvid", CamVid)
    write(root / "labels" / "b.png", np.full((6, 8), 3, np.uint8))
    reader = CamVid(root)
    with pytest.raises(ValueError, match="got label 3 in mask, expected 0 to 1, or ignore_index=2"):
        ToPixelGrid(num_classes=reader.num_classes, ignore_index=reader.ignore_index)(reader[1])


def test_classes_that_cannot_be_read(tmp_path):
    for reader in CLASSES:
        root = write_set(tmp_path / reader.__name__, reader)
        for text in ("sky\n", "one sky\n", "0\tsky\n1\n"):
            (root / "classes.txt").write_text(text)
            with pytest.raises(ValueError, match=r"classes\.txt: got lines of another kind, expected a number and a"):
                reader(root)


def test_annotators_that_are_missing(tmp_path):
    root = write_set(tmp_path, BSDS500)
    write(root / "labels" / "g_a0.png", np.ones((6, 8), np.uint8))
    write(root / "images" / "g.jpg", np.zeros((6, 8, 3), np.uint8))
    add_line(root, "val\timages/g.jpg\tlabels/g_a0.png")
    whole = BSDS500(root, "val")
    assert whole.num_annotators == 2 and whole[1].annotations.dtype == torch.int64
    assert torch.equal(whole[1].annotations, torch.tensor([1, -1]).view(2, 1, 1).expand(2, 6, 8))
    second = BSDS500(root, annotator=1)
    assert len(second) == 6 and [Path(bad.file).name for bad in second.bad_files] == ["g.jpg"]
    assert second.bad_files[0].reason == "got no segments, expected a file (splits.txt, line 8)"
    assert torch.equal(second[0].segments, BSDS500(root)[0].annotations[1])
    (root / "labels" / "a_a0.png").unlink()  # of an annotator that is not asked for
    assert len(BSDS500(root, annotator=1)) == 6 and len(BSDS500(root, annotator=0).bad_files) == 1
    wrong: Any
    for wrong in (-1, 2, "0"):
        with pytest.raises(ValueError, match=r"got annotator=.*, expected one of 0, 1"):
            BSDS500(root, annotator=wrong)


def test_options_are_part_of_the_recipe(tmp_path):
    bsds, msrc = write_set(tmp_path / "a", BSDS500), write_set(tmp_path / "b", MSRC21)
    recipes = [
        BSDS500(bsds).recipe(),
        BSDS500(bsds, annotator=0).recipe(),
        BSDS500(bsds, annotator=1).recipe(),
        MSRC21(msrc).recipe(),
        MSRC21(msrc, classes=23).recipe(),
        MSRC21(msrc, regions=True).recipe(),
        CamVid(write_set(tmp_path / "c", CamVid)).recipe(),
    ]
    assert all(recipes.count(recipe) == 1 for recipe in recipes)
    assert BSDS500(bsds, "val").recipe() == recipes[0]  # the same images of the same files
    (msrc / "classes.txt").write_text(CLASSES[MSRC21].replace("2 horse", "2 house"))  # code 2 is a class now
    assert MSRC21(msrc).recipe() not in recipes
    with pytest.raises(ValueError, match="got classes=22, expected one of 21, 23"):
        MSRC21(msrc, classes=22)
