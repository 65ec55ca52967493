"""What is refused before anything is trained: lenses that an arm's model cannot be looked at through."""

from __future__ import annotations

import pytest
from study_helpers import make_study, raw_study, write_reviews

from tiny_encoder_decoder import folder_of
from tunescope.errors import ConfigError
from tunescope.lenses import LENSES
from tunescope.study.check import check_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-stacks")
    return write_reviews(folder / "rows.csv", 30), folder_of("t5", folder / "t5")


def test_lenses_of_one_stack_are_refused_for_an_encoder_decoder_before_training(folders):
    rows, model = folders
    lenses = [{"lens": "cka"}, {"lens": "dimensions"}, {"lens": "words"}]
    study = make_study(raw_study(rows, model, lenses=lenses))
    refused = [one["lens"] for one in lenses if not LENSES[one["lens"]].two_stacks]
    assert "dimensions" in refused
    with pytest.raises(ConfigError) as raised:
        check_study(study)
    for name in refused:
        assert f"lenses.{name}: it cannot yet look at an encoder-decoder, which the model of full is" in str(
            raised.value
        )
    assert "lenses.cka:" not in str(raised.value)
    assert "the lenses that can: " in str(raised.value)


def test_lenses_of_two_stacks_and_models_of_one_pass(folders, gpt2_folder):
    rows, model = folders
    check_study(make_study(raw_study(rows, model, lenses=[{"lens": "cka"}])))
    check_study(make_study(raw_study(rows, gpt2_folder, lenses=[{"lens": "dimensions"}])))
