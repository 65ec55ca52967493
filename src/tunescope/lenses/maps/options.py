"""Options of the lens ``maps``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tunescope.lenses.subject import LensRows
from tunescope.stats.embedding import MINIMUM_POINTS

Method = Literal["pca", "tsne", "umap"]
Layers = tuple[int, ...] | Literal["all"] | None
MOST_ROWS = 20_000


class ClusterOptions(BaseModel):
    """How clusters are found in the full space, and compared with labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(
        default=2000,
        ge=10,
        le=5000,
        description="rows that are clustered, the first of a random order: 10 to 5000",
    )
    most: int = Field(default=8, ge=2, description="the greatest number of k-means clusters tried: 2 or more")
    least_rows: int | None = Field(
        default=None,
        ge=2,
        description="the fewest rows of an HDBSCAN cluster: 2 or more; null is 2 % of the rows, 5 at least",
    )
    resamples: int = Field(default=500, ge=20, description="bootstrap samples of rows: 20 or more")
    permutations: int = Field(
        default=499, ge=19, description="permutations of labels for the null: 19 or more"
    )


class MapRows(LensRows):
    """Which rows are mapped: all of them need be kept at once."""

    n: int = Field(
        default=1000, ge=MINIMUM_POINTS, le=MOST_ROWS, description="how many rows at most: 10 to 20000"
    )


class DrawOptions(BaseModel):
    """What is drawn, and how: shared by the lenses ``maps`` and ``steps``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: MapRows = Field(default_factory=MapRows, description="which rows are mapped")
    layers: Layers = Field(
        None,
        description="a list of blocks from 0 (-1 embeddings, the number of blocks the final norm), all, or null for "
        "the first, middle and last block and the final norm",
    )
    methods: tuple[Method, ...] = Field(
        ("pca", "tsne", "umap"), min_length=1, description="a list of pca, tsne and umap"
    )
    axes: tuple[Literal[2, 3], ...] = Field((2, 3), min_length=1, description="a list of 2 and 3")
    standardised: bool = Field(
        False, description="divide every dimension by its standard deviation over base and tuned rows first"
    )
    components: int = Field(
        50, ge=3, description="principal axes in which t-SNE and UMAP look for neighbours: 3 or more"
    )
    perplexity: float = Field(30.0, gt=1, description="t-SNE's effective number of neighbours: above 1")
    umap_neighbours: int = Field(
        15, ge=2, description="UMAP's neighbours of a point, itself among them: 2 or more"
    )
    trusted: int = Field(10, ge=1, description="neighbours that trustworthiness counts: 1 or more")


class MapOptions(DrawOptions):
    """Options of the lens ``maps``."""

    clusters: ClusterOptions = Field(
        default_factory=lambda: ClusterOptions(),
        description="how clusters are found and compared with labels",
    )


class StepRows(LensRows):
    """Which rows are followed over training: each of them stands in the map once a step."""

    n: int = Field(
        default=300, ge=MINIMUM_POINTS, le=MOST_ROWS, description="how many rows at most: 10 to 20000"
    )


class StepOptions(DrawOptions):
    """Options of the lens ``steps``."""

    rows: StepRows = Field(default_factory=StepRows, description="which rows are followed")  # type: ignore[assignment]
    layers: Layers = Field(
        (),
        description="a list of blocks from 0 (-1 embeddings, the number of blocks the final norm), all, or an empty "
        "list for the last place alone",
    )
    methods: tuple[Method, ...] = Field(("pca",), min_length=1, description="a list of pca, tsne and umap")
    folder: str | None = Field(
        None,
        description="the folder that holds checkpoint-* folders, or null for those beside the tuned model: a study "
        "keeps its own where this lens is asked for",
    )
    most: int = Field(
        12, ge=2, description="the most steps that are drawn, evenly spread over those there are: 2 or more"
    )
