"""What each kind of figure shows and what a high value in it means: one line a kind, found by the figure's key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tunescope.report.figures.style import Figure

# Kind: (what it shows, what a high value means, how to read it where the builder does not say).
READINGS: dict[str, tuple[str, str, str]] = {
    "depth": (
        "What tuning changed from layer to layer, one lane a measure.",
        "Weight change: the layer moved far. CKA: base and tuned are alike there. Accuracy: the answer can be read "
        "there. Ablation: the answer needs the layer. Grafting: tuned weights up to here carry the task.",
        "Follow one layer through all lanes: a layer that moved, differs and is needed is where tuning worked.",
    ),
    "trade-off": (
        "Accuracy of each arm beside what it costs.",
        "Up: more rows right. Right: dearer.",
        "An arm with another above it and to its left is dominated.",
    ),
    "grid": ("Validation results of a grid's trials.", "Up: more, by the metric named.", ""),
    "model": (
        "The model from input to output, site by site, and how far each arm's tuning moved each matrix.",
        "A full colour: the matrix moved far, by its own size. Grey: frozen, it cannot move.",
        "From the input above to the logits below, a row a block; under each column the site that it writes. Read it "
        "beside ablation: what moved need not matter.",
    ),
    "parameters": (
        "Parameters of each kind of matrix, trained and frozen, by arm.",
        "A long bar: many numbers. The full colour is the part that was trained.",
        "Compare the coloured part of the bars: an adapter trains a sliver of what full tuning trains.",
    ),
    "training": (
        "The course of training: losses and validation accuracy over epochs.",
        "Loss: worse. Accuracy: better.",
        "A validation loss that rises while the training loss falls is overfitting; a curve that still falls at the "
        "end was stopped early.",
    ),
    "memory": (
        "Memory over the course of each training.",
        "More memory was held at that moment.",
        "Compare the courses within one run; a step up at the start is the model, the saw behind it the batches.",
    ),
    "reliability": (
        "Whether rows answered with a probability of p are right p of the time.",
        "Above the diagonal: less sure than it could be. Below: too sure.",
        "Points on the diagonal are calibrated.",
    ),
    "confusion": ("Which classes are taken for which.", "A dark cell: a large share of the true class.", ""),
    "behaviour": (
        "How far rewriting a text moves each model, suite by suite.",
        "Right: the model moves more when the text is exchanged.", "",
    ),
    "behaviour-classes": ("Which class gains when a text is exchanged.", "Right of 0: the class gains.", ""),
    "behaviour-terms": ("The single exchanges that move the tuned model most.", "Right: it moves more.", ""),
    "behaviour-mediation": (
        "Which component carries the change between the two texts.",
        "1: the component's value alone brings the whole change; 0: none of it.",
        "A dark cell late and alone is a gate; a line of cells is a path.",
    ),
    "behaviour-dimensions": (
        "Which single dimensions of the stream carry the change between the two texts.",
        "1: the dimension's value alone brings the whole change; 0: none of it.", "",
    ),
    "behaviour-states": (
        "The states of both texts of a pair, token by token, and their difference.",
        "A deep colour: a number far from 0 in that dimension.", "",
    ),
    "cka": (
        "How alike the rows' geometry is at every two layers.",
        "1: the same geometry up to rotation and scale. 0: nothing in common.", "",
    ),
    "cka-variants": (
        "CKA of base and tuned at the same layer, three ways of weighing dimensions.",
        "1: unchanged by tuning at that layer.", "",
    ),
    "bow-tie": (
        "Whether layers fall into an early and a late block that resemble themselves more than each other.",
        "Above 0: two blocks. 0: none.", "",
    ),
    "measures": (
        "Base against tuned by representational similarity and Procrustes distance.",
        "Similarity: 1 is unchanged. Distance: 0 is unchanged, 1 as far as can be.", "",
    ),
    "probes": (
        "How well a linear probe reads the task from each layer, and what the same probe reads of random labels.",
        "Accuracy near 1: a line separates the classes there.", "",
    ),
    "spikes": (
        "The variance of every dimension of the pooled states.",
        "A tall spike: one dimension is much louder than the rest.", "",
    ),
    "spikes-all": ("The same at every layer.", "A tall spike: one dimension is much louder than the rest.", ""),
    "cloud": (
        "How evenly the states fill their space, layer by layer.",
        "Isotropy near 1: all directions alike. Mean cosine near 1: all rows point one way.",
        "Loud single dimensions pull both; compare with the variance by dimension.",
    ),
    "one-dimension": (
        "Accuracy of a threshold on one single dimension, beside the whole head.",
        "Near the head's accuracy: one dimension all but decides.", "",
    ),
    "dimension-shares": (
        "How much of each class's logit the strongest dimensions give, added up.",
        "Reaching 1 early: few dimensions decide.", "",
    ),
    "dimension-removal": (
        "Accuracy while dimensions of the head's input are removed one after another.",
        "High to the far right: the answer is spread over many dimensions.", "",
    ),
    "map": (
        "Rows as points, near where their states are near, in the base and in the tuned model.",
        "No axis has a unit: only what is near what can be read.", "",
    ),
    "clusters": (
        "Whether clusters of the states agree with the labels, layer by layer.",
        "1: clusters are the labels. 0: what chance gives.", "",
    ),
    "sublayers": (
        "What each attention and MLP sublayer gives to the answer: the effect of taking it out.",
        "Far from 0: the answer changes without it.",
        "Negative: the answer gets worse without it. Compare with the base and with the control in the hover.",
    ),
    "heads": (
        "What each head gives to the answer: the effect of taking it out.",
        "Red: the answer gets worse without the head. Blue: better.",
        "Single strong cells carry the task alone; pale maps mean that no head is needed alone.",
    ),
    "classes": ("Which classes each layer's parts serve.", "Red: the class gets worse without it.", ""),
    "probabilities": (
        "Where the probability goes when a part is taken out.",
        "Blue: the class gains probability; red: it loses it.",
        "Each column adds up to 0: what one class loses others gain.",
    ),
    "picks": (
        "The strongest components, picked on one half of the rows and measured on the other.",
        "Far from 0: the effect holds on rows that did not pick it.",
        "An estimate that shrinks towards 0 on the other half was flattered by the choice.",
    ),
    "removal": ("The answer while components go one after another.", "Up: still answered well.", ""),
    "all-but-one": ("What one head alone still does, all others out.", "Blue: better than without any.", ""),
    "sets": (
        "The effect of taking out named sets, places and pairs.",
        "Far from 0: the answer changes without the set.",
        "Compare with the grey mark: a random direction of equal norm.",
    ),
    "seeds": ("The same effects in two trainings that differ in the seed.", "Far from 0 in both: it repeats.", ""),
    "screen": (
        "How well the cheap estimate ranked components, against their exact effects.",
        "1: the estimate ranks as the exact effects do. 0: as chance would.",
        "An interval that reaches down to 0 is a screen that cannot be trusted to rank.",
    ),
    "published": ("The published figure, and the one that its words describe.", "Red: the class loses.", ""),
    "patching": (
        "How much of another text's answer comes back with one activation from it.",
        "1: that place alone carries what differs. 0: nothing of it.",
        "The path of dark cells from the differing word to the last place is the way of the information.",
    ),
    "cross": (
        "How much of the tuned answer appears when a tuned activation is put into the base.",
        "1: all that tuning did can be had there. 0: nothing.", "",
    ),
    "graft-curve": (
        "Accuracy recovered when tuned weights replace the base's, layer after layer.",
        "1: as good as the tuned model. 0: as the base.", "",
    ),
    "graft-parts": (
        "Share of tuning's gain in margin that each part's weights carry alone.",
        "100 %: that part alone is enough.", "",
    ),
    "logit-lens": (
        "What the model's own head reads at every layer.",
        "Accuracy near its end: the answer is there already.", "",
    ),
    "direct": ("Which part writes the answer into the residual stream.", "Blue: towards the true class.", ""),
    "direct-classes": (
        "Which part writes each class.",
        "Blue: towards the class.",
        "Parts that are blue for one class only are its own.",
    ),
    "words": ("The words whose loss costs each class most.", "Right: without the word the class loses.", ""),
    "other": ("Each model beside a third.", "CKA 1: the same geometry.", ""),
    "other-shared": (
        "How many loud dimensions two models share.",
        "1: the same dimensions are loud in both.", "",
    ),
    "steps": (
        "How accuracy, similarity and the map move while the model is trained.",
        "Accuracy: better. CKA: still like the base. Way gone: farther from the start.",
        "Where a curve is flat, training changed nothing that it measures.",
    ),
    "steps-map": ("The rows' states at single steps of training.", "Only what is near what can be read.", ""),
    "attention": ("How far each head looks elsewhere after tuning.", "A dark cell: the head looks elsewhere.", ""),
    "attention-map": (
        "What one head attends to in one text, before and after tuning.",
        "The token down the side reads the token along the bottom.",
        "A line is a token and sums to 1; compare the two maps line by line.",
    ),
    "flow": ("Which part acts on the answer through which later part.", "The writer acts through the reader.", ""),
    "flow-tokens": (
        "How much of each token can reach the place of the answer.",
        "More of the token can reach it.",
        "What cannot reach the place cannot decide; what can reach it need not.",
    ),
    "attention-changes": ("What of the heads' gaze changed.", "Blue: more of it after tuning; red: less.", ""),
    "attention-effect": (
        "Whether heads whose attention moved are heads that matter.",
        "Right: the gaze moved. Far from 0: the answer needs the head.", "",
    ),
    "activations": ("How large the states are at every site.", "Up: larger states.", ""),
    "massive": (
        "The largest single numbers of the states.",
        "Above the line: a massive activation.", "",
    ),
    "neurons": ("The neurons whose activity moved most.", "Far from 0: more (right) or less (left) active.", ""),
    "weights": ("How far each matrix moved.", "A dark cell: it moved far, by its own size.", ""),
    "weight-heads": (
        "How far each head's own weights moved.",
        "A dark cell: the head's weights moved far.",
        "A head that moved need not matter: read it beside the ablation of heads.",
    ),
    "weight-statistics": (
        "What every matrix of the model is like: size of its entries, and in how many directions it acts.",
        "A dark cell: larger entries, or more directions, than the model's other matrices.", "",
    ),
    "weight-ranks": ("In how many directions each matrix moved.", "Up: spread over more directions.", ""),
    "intruders": (
        "How many leading directions of the tuned weights are new.",
        "Up: more directions that the base does not have.", "",
    ),
    "watch": (
        "The measures taken while the model was trained.",
        "By measure: see the axis of each panel.",
        "Compare the moment at which each curve moves; a measure that moves before accuracy announces it.",
    ),
}  # fmt: skip

MEASURED = {
    "grid": "One value a trial, on validation rows alone.",
    "trade-off": "Accuracy on the rows of the headline split; cost of the training of each arm.",
    "model": "Norm of the change over the norm of the base's weights, a matrix each; no rows.",
    "parameters": "Counted in parameters.json of each arm's first seed; no rows.",
    "training": "Losses and accuracy as the trainings logged them.",
    "memory": "The memory of the process, sampled while it trained.",
    "confusion": "Counts of predictions, rows of the headline split.",
    "reliability": "Share right by the probability of the answer, rows of the headline split.",
    "depth": "Each lane on its own rows: its hover says which.",
    "behaviour": "Changes of the logit margin between the texts of a pair, base and tuned on the same pairs.",
    "behaviour-states": "States of single pairs, token by token.",
}


def told(figure: Figure) -> Figure:
    """Return a figure with what its builder left open: what it shows, how to read it, what a high value means.

    Its kind is the longest entry that its key begins with, up to a hyphen: ``attention-effect-0`` is an
    ``attention-effect``. A figure of a kind without an entry stays as it is.
    """
    shows, high, how = READINGS.get(kind(figure.key, READINGS), ("", "", ""))
    return replace(
        figure,
        shows=figure.shows or shows,
        high=figure.high or high,
        how=figure.how or how,
        measured=figure.measured or MEASURED.get(kind(figure.key, MEASURED), ""),
    )


def kind(key: str, known: Iterable[str]) -> str:
    """Return the longest entry that a key begins with, up to a hyphen or its end; empty where there is none."""
    fitting = [name for name in known if f"{key}-".startswith(f"{name}-")]
    return max(fitting, key=len, default="")
