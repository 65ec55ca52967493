"""Colours of arms stay apart for readers who lack one kind of cone, and stand out from the paper of both themes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tunescope.report.figures.style import ARM_COLOURS, THEMES

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
MACHADO = {
    "all cones": np.eye(3),
    "no long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no medium": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
NOTICED = 2.3  # CIE76: the least difference that is seen


def linear(colour):
    part = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(colour, seen_as):
    share = TO_XYZ @ np.clip(np.array(seen_as) @ linear(colour), 0, 1) / TO_XYZ.sum(1)
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(colours, seen_as):
    return min(
        np.linalg.norm(lab(one, seen_as) - lab(other, seen_as))
        for one, other in itertools.combinations(colours, 2)
    )


@pytest.mark.parametrize("cones", MACHADO)
def test_arms_are_told_apart_whatever_cones_a_reader_has(cones):
    assert apart(ARM_COLOURS[:6], MACHADO[cones]) > 6 * NOTICED
    assert apart(ARM_COLOURS, MACHADO[cones]) > 3 * NOTICED


def test_red_and_green_of_one_lightness_would_fail():
    assert apart(["#b05050", "#6b7f43"], MACHADO["no medium"]) < 6 * NOTICED


@pytest.mark.parametrize("theme", THEMES)
def test_lines_stand_out_from_the_paper(theme):
    paper = TO_XYZ[1] @ linear(THEMES[theme]["paper"])
    for colour in ARM_COLOURS:
        light, dark = sorted((paper, TO_XYZ[1] @ linear(colour)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 2.0, colour
