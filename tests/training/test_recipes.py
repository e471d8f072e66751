"""The papers' recipes: whole, plain, and their small variants take steps on whatever images there are."""

from __future__ import annotations

import importlib
import json
from itertools import islice

import pytest
import torch

from graphseg.cli.images import DATASETS
from graphseg.training import Recipe, TrainingData, TrainingTask, load_recipe, network_of, recipe_names
from graphseg.training.evaluation import make_judge
from graphseg.training.task import make_optimizer
from tests.training._small import Scenes, tiny

NAMES = recipe_names()
# Paper: a recipe's learning rate, batch size, steps, weight decay and crop.
PRINTED = {
    "msp_ade20k": (0.01, 16, 80_000, 5e-4, (512, 512)),
    "msp_cityscapes": (0.01, 8, 80_000, 5e-4, (769, 769)),
    "msp_pascal_voc": (0.01, 16, 40_000, 5e-4, (512, 512)),
    "msp_pascal_context": (0.01, 16, 80_000, 5e-4, (480, 480)),
    "cdgcnet_cityscapes": (0.01, 8, 30_000, 5e-4, (769, 769)),
    "cdgcnet_pascal_voc": (0.001, 16, 30_000, 1e-4, (513, 513)),
    "cdgcnet_coco_stuff": (0.001, 16, 60_000, 1e-4, (520, 520)),
}
# SGSeg, Table 12: learning rates, batch size, alpha, beta, gamma; and the superpixels of appendix A.2.
TABLE_12 = {
    "sgseg_coco_stuff": (1e-5, 5e-4, 5e-6, 64, 2, 5, 1, 200),
    "sgseg_coco_stuff3": (1e-5, 5e-4, 5e-5, 64, 2, 5, 1, 100),
    "sgseg_potsdam": (5e-5, 1e-4, 1e-6, 32, 1, 5, 0.5, 100),
    "sgseg_potsdam3": (5e-5, 5e-4, 5e-6, 32, 1, 5, 0.5, 100),
}
CLASSES = {
    "ade20k": 150,
    "camvid": 11,
    "cityscapes": 19,
    "dsb2018": 2,
    "msrc21": 21,
    "pascal_voc": 21,
    "penn_fudan": 2,
    "sentinel2": 3,
}


def images(recipe: Recipe, count: int = 3) -> Scenes:
    """Scenes with as many classes as the recipe's own set, and channels."""
    classes = recipe.dataset_options.get("classes", CLASSES.get(recipe.dataset))
    four = recipe.dataset in ("potsdam", "sentinel2")
    return Scenes(count, (52, 70), growth=3, num_classes=classes, channels=4 if four else 3)


def test_there_is_one_for_every_paper_and_set():
    papers = {
        "msp": ["ade20k", "camvid", "cityscapes", "pascal_context", "pascal_voc"],
        "es_crf": ["ade20k", "camvid", "cityscapes"],
        "cdgcnet": ["camvid", "cityscapes", "coco_stuff", "pascal_voc"],
        "sgseg": ["coco_stuff", "coco_stuff3", "msrc21", "potsdam", "potsdam3", "sentinel2"],
        "affinity": ["cityscapes", "dsb2018", "penn_fudan"],
    }
    assert sorted(f"{paper}_{name}" for paper, names in papers.items() for name in names) == NAMES
    for paper, names in papers.items():
        assert all(load_recipe(f"{paper}_{name}").dataset == name.removesuffix("3") for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_say_what_they_are(name):
    module = importlib.import_module(f"graphseg.training.recipes.{name}")
    assert "Paper: " in (module.__doc__ or "")
    for recipe in (load_recipe(name), load_recipe(name, small=True)):
        assert recipe.name == name and recipe.source and recipe.dataset in DATASETS
        values = json.loads(json.dumps(recipe.values()))
        assert values == recipe.values() == Recipe(**values).values()
        assert sum(steps for _, steps in recipe.stages) in (0, recipe.max_steps)


def test_numbers_are_the_papers():
    for name, expected in PRINTED.items():
        r = load_recipe(name)
        assert (r.lr, r.batch_size, r.max_steps, r.weight_decay, r.crop) == expected, name
        assert (r.optimizer, r.momentum, r.schedule, r.power) == ("sgd", 0.9, "poly", 0.9)
    for name, (spnn, gnn, cnn, batch, *loss, superpixels) in TABLE_12.items():
        r = load_recipe(name)
        assert r.lr == {"spnn": spnn, "gnn": gnn, "cnn": cnn} and r.batch_size == batch
        assert [r.options[key] for key in ("alpha", "beta", "eta", "num_superpixels")] == [*loss, superpixels]
        assert (r.optimizer, r.weight_decay, r.options["k"], r.options["gnn"]) == ("adam", 0, 20, "diff_gcn")
    affinity = load_recipe("affinity_cityscapes")
    assert (affinity.lr, affinity.gamma, affinity.step_size, affinity.crop) == (0.02, 0.7, 15_000, (513, 513))
    assert [load_recipe(f"msp_{name}").options["num_superpixels"] for name in ("ade20k", "cityscapes")] == [
        (200, 300, 400),
        (100, 200),
    ]
    assert [load_recipe(f"es_crf_{name}").options["num_superpixels"] for name in ("ade20k", "cityscapes")] == [200, 600]


@pytest.mark.parametrize("name", NAMES)
def test_the_network_of_the_paper_can_be_built(name):
    """Narrow, which changes no option but the width."""
    recipe = load_recipe(name)
    recipe = recipe.but(options={"width": 0.03})
    reader = images(recipe)
    network = network_of(recipe, reader)
    assert network.options["num_classes"] == recipe.count_classes(reader.num_classes)  # type: ignore[index]
    make_optimizer(network, recipe)
    image = reader[0].image.float()[None] / 255
    assert network.eval()(image)[0].shape == (1, network.options["num_classes"], 52, 70)  # type: ignore[index]


@pytest.mark.parametrize("name", NAMES)
def test_small_variants_take_steps_and_are_judged(name):
    recipe = load_recipe(name, small=True)
    reader = images(recipe, 4)
    network = network_of(recipe, reader, seed=1)
    before = [p.detach().clone() for p in network.parameters()]
    task = Steps(network, recipe)
    optimizer = make_optimizer(network, recipe)
    data = TrainingData(recipe, reader, reader)
    # The first step, and one of the last stage.
    for number, batch in zip((0, recipe.max_steps - 1), islice(data.train_dataloader(), 2), strict=True):
        network.train()
        task.number = number
        task.on_train_batch_start(batch, number)
        optimizer.zero_grad()
        loss = task.training_step(batch, number)
        loss.backward()
        optimizer.step()
        assert loss.isfinite() and batch["image"].shape[0] == recipe.batch_size
    assert all(p.isfinite().all() for p in network.parameters())
    changed = [not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    judge = make_judge(network, recipe, reader)
    judge.update(network.eval(), next(iter(data.val_dataloader())))
    assert judge.compute()


class Steps(TrainingTask):
    """At the step that the test says, without a trainer."""

    number = 0

    @property
    def global_step(self) -> int:
        return self.number

    def log(self, *arguments, **options):
        """Nothing listens."""


# The recipe itself


def test_changes_are_added_to_options():
    recipe = tiny(lr=0.5).but(options={"width": 2.0}, lr=0.25)
    assert recipe.options["width"] == 2.0 and recipe.options["backbone"] == "resnet18" and recipe.lr == 0.25
    with pytest.raises(TypeError, match="learning_rate"):
        recipe.but(learning_rate=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "panoptic"}, "got kind='panoptic', expected one of 'semantic'"),
        ({"optimizer": "lbfgs"}, "got optimizer='lbfgs', expected one of 'sgd'"),
        ({"schedule": "cosine"}, "got schedule='cosine', expected one of 'poly'"),
        ({"superpixels": "none"}, "got superpixels='none', expected one of 'device', 'cached'"),
        ({"batch_size": 0}, "got batch_size=0, expected at least 1"),
        ({"max_steps": 0}, "got max_steps=0, expected at least 1"),
    ],
)
def test_bad_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"got recipe 'msp_mnist', expected one of affinity_cityscapes, .*sgseg_"):
        load_recipe("msp_mnist")
    with pytest.raises(ValueError, match="got recipe '_small', expected one of"):
        load_recipe("_small")


def test_classes_are_counted_after_the_map():
    assert tiny().count_classes(7) == 7 and tiny().count_classes(None) is None
    assert tiny(class_map=(1, 255, 0, 1)).count_classes(4) == 2 and tiny(class_map=(0, 1)).count_classes(None) is None
    with pytest.raises(ValueError, match="got a class_map of 2 classes, expected 3 as in the masks"):
        tiny(class_map=(0, 1)).count_classes(3)


def test_a_network_needs_classes():
    with pytest.raises(ValueError, match=r"got Scenes\(1\) without classes, expected masks, or num_classes"):
        network_of(tiny(), Scenes(1, num_classes=None))
    assert network_of(tiny(options={"num_classes": 5}), Scenes(1, num_classes=None)).num_classes == 5
    assert network_of(tiny("AffinityInstances"), Scenes(1, num_classes=None)).num_classes == 2
    assert network_of(tiny(), Scenes(1, channels=4)).in_channels == 4
