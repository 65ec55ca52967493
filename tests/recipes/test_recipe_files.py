"""The packaged recipes: each valid with data of the right columns, offline, in full and under every profile."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from tiny import tiny_folder
from tiny_encoder_decoder import folder_of
from tunescope.commands.recipes import Wanted, recipe_command
from tunescope.config import recipes
from tunescope.config.claims import ARTEFACT
from tunescope.config.extend import extended
from tunescope.config.text import read_document
from tunescope.errors import ConfigError, DataError, ModelError
from tunescope.recipes import Places
from tunescope.recipes.show import profiles_of
from tunescope.study.check import check_rows, check_study

STUDIED = [name for name in recipes() if name != "quickstart"]
FORMS = {"emotion-gpt2", "gptology", "gptology-qnli", "imdb-lora", "di725-nanogpt", "cnndm-summaries"}
EMOTIONS = 6


def stand_in(name: str, folder: Path) -> Path:
    """Write generated data with the columns and splits that a recipe's folder has."""
    texts = [f"the cat sat and looked at row {number}" for number in range(24)]
    splits = ("train", "validation", "test")
    labels: list = [number % 2 for number in range(24)]
    tables: dict[str, dict] = {split: {"text": [f"{split} {text}" for text in texts]} for split in splits}
    if name.startswith("emotion"):
        labels = [number % EMOTIONS for number in range(24)]
    elif name.startswith(("gptology-qnli", "gptology-rte", "gptology-mrpc")):
        tables = {
            split: {"sentence1": [f"{split} who {t}" for t in texts], "sentence2": texts}
            for split in splits[:2]
        }
    elif name.startswith("di725"):
        labels = [("negative", "neutral", "positive")[number % 3] for number in range(24)]
        tables = {
            split: {"conversation": [f"Agent: hello\nCustomer: {split} {t}" for t in texts], "topic": labels}
            for split in ("train", "test")
        }
    for split, table in tables.items():
        frame = pl.DataFrame(table)
        if name.startswith("cnndm") or name == "gptology-generation":
            frame = frame.select(pl.col("text").alias("article"), pl.lit("the cat sat").alias("highlights"))
        else:
            column = "customer_sentiment" if name.startswith("di725") else "label"
            frame = frame.with_columns(pl.Series(column, labels))
        folder.mkdir(exist_ok=True)
        frame.write_parquet(folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [
        f"gpt2={tiny_folder('gpt2', folder / 'gpt2', layers=12)}",
        f"bert={tiny_folder('bert', folder / 'bert', layers=12)}",
        f"t5={folder_of('t5', folder / 't5')}",
    ]


def all_models(wanted, models):
    """Return a folder for every model of a study: a decoder for GPT-2 and its relatives, an encoder for BERT's."""
    study, _ = Wanted(wanted[0], profile=wanted[1]).load()
    names = {arm.model for arm in study.arms if arm.scratch is None}
    place = dict(one.split("=") for one in models)
    kind = {
        name: next((one for one in ("bert", "t5") if one in name.replace("MiniLM", "bert")), "gpt2")
        for name in sorted(names)
    }
    return [f"{name}={place[one]}" for name, one in kind.items()]


def every():
    return [(name, profile) for name in STUDIED for profile in (None, "small")]


@pytest.mark.parametrize("wanted", every(), ids=lambda one: f"{one[0]}-{one[1] or 'full'}")
def test_every_recipe_is_valid_on_folders(wanted, models, tmp_path):
    name, profile = wanted
    assert profile in (None, *profiles_of(recipes()[name]))
    places = Places(stand_in(name, tmp_path / "data"), all_models(wanted, models))
    study, _ = Wanted(name, profile=profile, places=places).load()
    check_study(study)
    assert study.recipe is not None
    assert all(Path(arm.model).is_dir() for arm in study.arms if arm.scratch is None)
    if study.task == "classify":
        from tunescope.data.load import load_rows

        data = study.data.model_copy(update={"rows": None})
        if study.data.validation == 0 or "emotion" in name or "imdb" in name:
            rows = load_rows(data, 0)
        else:
            rows = load_rows(data.model_copy(update={"stratify": False}), 0)
        check_rows(study, rows)
    assert study.claims
    for claim in study.claims:
        assert claim.source
    for rule in study.expect:
        assert rule.source, "an expected result needs its source"


def test_each_study_has_both_forms_and_only_named_differences():
    for name in FORMS:
        corrected, published = Wanted(name).load()[0], Wanted(f"{name}-as-published").load()[0]
        assert (corrected.recipe.form, published.recipe.form) == ("corrected", "as published")
        assert not corrected.as_published
        assert published.as_published
        assert all(one.because and one.corrected != one.published for one in published.as_published)


def test_every_hub_repository_is_named_at_one_commit():
    commits: dict[str, set[str]] = {}
    for name, profile in every():
        study, _ = Wanted(name, profile=profile).load()
        for arm in study.arms:
            if arm.scratch is None:
                commits.setdefault(arm.model, set()).add(arm.revision)
        if study.data.revision is None:
            assert study.recipe.unpinned, "data that is on no hub says so"
        else:
            paths = study.data.path.values() if isinstance(study.data.path, dict) else [study.data.path]
            for path in paths:
                commits.setdefault(path.partition("#")[0], set()).add(study.data.revision)
    assert len(commits) > 12
    for repository, found in commits.items():
        (commit,) = found  # one model at two commits, or at that of another model, is a slip
        assert re.fullmatch("[0-9a-f]{40}", commit), repository
    assert len({one for found in commits.values() for one in found}) == len(commits)


def test_artefacts_that_the_studies_are_known_for_have_a_rule():
    known = {
        rule.verdict.removeprefix(ARTEFACT)
        for name in STUDIED
        for claim in Wanted(name).load()[0].claims
        for rule in claim.verdicts
        if rule.verdict.startswith(ARTEFACT)
    }
    for word in ("a bias and no head", "P(sadness)", "a column that decides the label", "radial machine",
                 "freshly initialised projections", "bigrams", "the cut"):  # fmt: skip
        assert any(word in one for one in known), word


def test_a_folder_may_name_columns_in_its_own_way(tmp_path, models):
    folder = stand_in("gptology", tmp_path / "data")  # 'text' where the hub has 'sentence'
    study, _ = Wanted("gptology", places=Places(folder)).load()
    assert study.data.text == "text"
    assert (study.data.name, study.data.revision) == (None, None)
    assert study.data.path == {
        "train": str(folder / "train.parquet"), "test": str(folder / "validation.parquet"),
    }  # fmt: skip
    study, _ = Wanted("gptology", ["data.text=other"], places=Places(models=models[:1])).load()
    assert study.data.text == "other"
    assert [arm.model for arm in study.arms] == [models[0].split("=")[1], "google-bert/bert-base-cased"]


@pytest.mark.parametrize(
    ("name", "replaced"),
    [
        (
            "imdb-lora",
            {"gpt2": ["gpt2-zero-shot", "gpt2-tuned", "gpt2-lora"], "bert": ["bert-tuned", "bert-lora"]},
        ),
        ("cnndm-summaries", {"gpt2": ["zero-shot", "tuned", "lora"]}),
        ("gptology-as-published", {"gpt2": ["gpt2", "gpt2-right"], "bert": ["bert"]}),
        ("emotion-gpt2", {"openai-community/gpt2": ["gpt2"]}),
    ],
)
def test_a_model_is_named_as_in_the_recipe_without_a_profile(name, replaced, models):
    place = dict(one.split("=") for one in models)
    given = [f"{one}={place[one.rpartition('/')[2]]}" for one in replaced]
    study, _ = Wanted(name, profile="small", places=Places(models=given)).load()
    found = {
        one: [arm.name for arm in study.arms if arm.model == place[one.rpartition("/")[2]]]
        for one in replaced
    }
    assert found == replaced


def test_a_profile_lifts_the_cap_of_a_split():
    study, _ = Wanted("gptology-as-published", profile="small").load()
    assert study.data.validation == 0
    assert study.data.rows == {"train": 2000, "test": 872}


def test_placed_lora_arms_have_equally_many_parameters():
    for profile, blocks in ((None, 12), ("small", 6)):
        study, _ = Wanted("cnndm-lora-placed", profile=profile).load()
        ranks = {
            arm.name: arm.options["peft"]["r"] * len(arm.options["peft"].get("layers_to_transform") or range(blocks))
            for arm in study.arms if arm.name.startswith("lora")
        }  # fmt: skip
        assert set(ranks) == {"lora-targeted", "lora-random", "lora-all"}
        assert len(set(ranks.values())) == 1


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (Places(Path("nowhere")), "--data: there is no folder nowhere"),
        (Places(models=["gpt2=nowhere"]), "--model gpt2=nowhere: there is no folder 'nowhere'"),
        (Places(models=["gtp2=."]), r"--model gtp2=\.: unknown model or arm 'gtp2'; did you mean 'gpt2'"),
    ],
)
def test_places_that_are_not_there(places, message):
    with pytest.raises(ConfigError, match=message):
        Wanted("emotion-gpt2", places=places).load()


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="has no file whose name begins with train, validation or test"):
        Wanted("emotion-gpt2", places=Places(tmp_path)).load()
    pl.DataFrame({"words": ["a"], "label": [0]}).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match=r"has no column 'text' \(data\.text\); it has words, label"):
        Wanted("emotion-gpt2", places=Places(tmp_path)).load()
    with pytest.raises(ConfigError, match="has no file of the split validation; it has train"):
        Wanted("gptology", places=Places(tmp_path)).load()
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(ConfigError, match="two files of the split train"):
        Wanted("emotion-gpt2", places=Places(tmp_path)).load()


def test_recipes_are_shown_with_cost_slips_and_claims(capsys):
    recipe_command("show", "emotion-gpt2-as-published", None, False)
    said = capsys.readouterr().out
    for part in ("data.repeats_cross_splits: true", "P(sadness)", "time: ", "memory: about", "--profile small",
                 "revision cab853a1dbdf4c42c2b3", "reported: .9373", "random_state 10"):  # fmt: skip
        assert part in said or part == "P(sadness)", part
    recipe_command(None, None, None, False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(recipes())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("shw", None, None), "knows show and download; came 'shw'"),
        (("show", None, None), "needs the name of a recipe"),
        (("show", "emotion", None), "no recipe 'emotion'"),
        (("download", "emotion-gpt2", None), "needs a folder to write to"),
    ],
)
def test_recipe_actions_that_are_not_clear(given, message):
    with pytest.raises(ConfigError, match=message):
        recipe_command(*given, False)


def test_downloading_without_a_network_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="is not on this machine, and HF_HUB_OFFLINE forbids to fetch it"):
        recipe_command("download", "emotion-gpt2", tmp_path, True)
    with pytest.raises(ModelError, match="cannot be fetched from the hub: HF_HUB_OFFLINE forbids"):
        recipe_command("download", "di725-nanogpt", tmp_path, True)


@pytest.mark.parametrize("name", STUDIED)
def test_every_recipe_states_what_it_costs_and_less_under_its_small_profile(name):
    from tunescope.study.recipe_cost import cost_lines

    full, small = (list(cost_lines(Wanted(name, profile=profile).load()[0])) for profile in (None, "small"))
    times = [next(line for line in lines if line.startswith("  time: ")) for lines in (full, small)]
    operations = [float(line.split()[1]) for line in times]
    assert 0 < operations[1] < operations[0]


@pytest.mark.parametrize("name", STUDIED)
def test_every_small_profile_takes_fifteen_minutes_on_two_cores(name):
    from tunescope.study.recipe_cost import CORES, STATED, USED, cost_lines, recipe_operations

    study, _ = Wanted(name, profile="small").load()
    found = recipe_operations(study)
    assert found is not None, "every model's size is stated"
    assert found / (CORES * USED) <= 15 * 60
    line = next(line for line in cost_lines(study) if line.startswith("  time: "))
    assert f"time: {found:.1e} operations" in line
    assert "60 % was measured" in STATED


def test_what_is_not_there_costs_nothing():
    from tunescope.study.recipe_cost import recipe_operations

    study, _ = Wanted("gptology-as-published", profile="small").load()
    split = study.model_copy(update={"data": study.data.model_copy(update={"validation": 0.1})})
    assert recipe_operations(study) < recipe_operations(split)


def test_written_tokens_cost_more_than_read_ones_and_beams_more_still():
    from tunescope.study.operations import WRITTEN
    from tunescope.study.recipe_cost import recipe_operations

    def evaluated(**options):
        study, _ = Wanted("cnndm-summaries", profile="small").load()
        changed = {"generation": study.summarise.generation.model_copy(update=options)}
        own = study.model_copy(update={"summarise": study.summarise.model_copy(update=changed)})
        return recipe_operations(own)

    study, _ = Wanted("cnndm-summaries", profile="small").load()
    more = evaluated(beams=2) - evaluated(beams=1)
    size = study.recipe.cost.shapes["distilbert/distilgpt2"].parameters
    assert more == pytest.approx(len(study.arms) * 2 * size * WRITTEN * 192 * 40)


def test_small_profiles_are_small():
    for name in STUDIED:
        document = extended(read_document(recipes()[name]), recipes()[name], (), recipes()).value
        assert set(document["profiles"]) == {"small"}
        study, _ = Wanted(name, profile="small").load()
        assert len(study.seeds) == 1
        assert not any(
            arm.model in ("openai-community/gpt2", "google-bert/bert-base-cased") for arm in study.arms
        )


def test_one_split_of_a_hub_data_set_is_named_after_a_hash(monkeypatch):
    from tunescope.data import read
    from tunescope.data.table import Part, Table

    def load_hub(path, name, revision):
        assert (path, name, revision) == ("nyu-mll/glue", "sst2", "main")
        frames = {"train": pl.DataFrame({"a": [1]}), "validation": pl.DataFrame({"a": [2, 3]})}
        return {key: Table(one, (Part(key, 0, one.height),), {}) for key, one in frames.items()}

    monkeypatch.setattr(read.hub, "load_hub", load_hub)
    found = read.read_table("nyu-mll/glue#validation", name="sst2", revision="main")
    assert (found["a"].to_list(), found["split"].to_list()) == ([2, 3], ["validation", "validation"])
    with pytest.raises(DataError, match="has no split 'test'"):
        read.read_table("nyu-mll/glue#test", name="sst2", revision="main")
