"""The pages and answers of the local server, as a Starlette application."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tunescope import __version__
from tunescope.lenses.bench import Bench
from tunescope.report import text
from tunescope.serve.asking import URGENCY, BadQuestion, Question, about, answers, plain, problem
from tunescope.serve.benches import Benches
from tunescope.serve.guard import REPORT_POLICY, Guard, TooLarge
from tunescope.serve.opening import open_bench
from tunescope.serve.runs import MOVIE, PAGES, ServedRun
from tunescope.serve.telling import TellingProgress
from tunescope.serve.work import Busy, Ended, Job, Worker

STATIC = {
    "style.css": ("report", "templates/style.css", "text/css"),
    "bench.css": ("report", "templates/bench.css", "text/css"),
    "theme.js": ("report", "templates/theme.js", "text/javascript"),
    "bench.js": ("report", "templates/bench.js", "text/javascript"),
    "serve.css": ("serve", "static/serve.css", "text/css"),
    "ask.js": ("serve", "static/ask.js", "text/javascript"),
    "side.js": ("serve", "static/side.js", "text/javascript"),
    "attention.js": ("serve", "static/attention.js", "text/javascript"),
    "page.js": ("serve", "static/page.js", "text/javascript"),
}  # fmt: skip
LINES = "application/x-ndjson"
BUSY = "The bench is busy with other questions; try again in a moment."


@dataclass
class Site:
    """What the server shows, and who does its work.

    Attributes:
        runs: The runs, by key.
        benches: Open models.
        device: Where models compute.
        asking: The thread that asks models.
        opening: The thread that loads models.
    """

    runs: dict[str, ServedRun]
    benches: Benches
    device: str
    asking: Worker
    opening: Worker

    def close(self) -> bool:
        """End both threads; False where one is still in the middle of something."""
        ended = [worker.close() for worker in (self.asking, self.opening)]
        return all(ended)


def make_site(runs: Sequence[ServedRun], device: str, most_bytes: float) -> Site:
    """Start the two threads of a server."""
    return Site(
        {run.key: run for run in runs},
        Benches(most_bytes),
        device,
        Worker("bench"),
        Worker("models", most=16),
    )


def make_app(site: Site, token: str, port: int) -> Guard:
    """Return the guarded application."""
    routes = [
        Route("/", _index),
        Route("/static/{name}", _static),
        Route("/runs/{run}/{name}", _page),
        Route("/bench/{run}/{arm}/{seed:int}", _bench_page),
        Route("/ask/{run}/{arm}/{seed:int}", _ask, methods=["POST"]),
        Route("/open/{run}/{arm}/{seed:int}", _open, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.state.site = site
    return Guard(app, token, port)


async def _index(request: Request) -> Response:
    runs = list(_site(request).runs.values())
    return _rendered("runs.html.j2", runs=runs)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return _missing("There is no such file.")
    return Response(_packaged(name), media_type=f"{STATIC[name][2]}; charset=utf-8")


async def _page(request: Request) -> Response:
    """Send one of a run's written pages, or a movie of its own; no other file of the folder is ever sent."""
    run, name = _site(request).runs.get(request.path_params["run"]), request.path_params["name"]
    movie = MOVIE.fullmatch(name) is not None
    if run is None or not (movie or name in PAGES):
        return _missing("There is no such run or page.")
    path = run.folder / name
    # A link out of the folder is not followed.
    if not path.is_file() or path.resolve().parent != run.folder.resolve():
        return _missing(f"This run has no {name}.")
    headers = {"content-security-policy": REPORT_POLICY}
    kind = "image/gif" if movie else "text/html; charset=utf-8"
    return FileResponse(path, media_type=kind, headers=headers)


async def _bench_page(request: Request) -> Response:
    run, arm, seed = _asked(request)
    training = None if run is None else run.training(arm, seed)
    if run is None or training is None:
        return _missing("There is no such training.")
    why = run.problem or run.why_no_bench or training.why_not
    return _rendered("bench.html.j2", run=run, training=training, why=why)


async def _open(request: Request) -> Response:
    """Load a training's models, and tell how far it is, a JSON line each."""
    site, (run, arm, seed) = _site(request), _asked(request)
    training = None if run is None else run.training(arm, seed)
    if run is None or training is None or run.problem or run.why_no_bench or training.why_not:
        return JSONResponse({"error": "There is no such training to open.", "hint": ""}, 404)
    key, folder = (run.key, arm, seed), run.folder

    def work(tell: Any) -> Iterator[dict[str, Any]]:
        bench = site.benches.get(key)
        if bench is None:
            yield {"step": "reading rows and models"}
            bench = open_bench(folder, arm, seed, site.device, TellingProgress(tell))
            site.benches.put(key, bench)
        yield {"ready": about(bench)}

    waits = {"step": "waiting for models that are being opened"} if site.opening.is_busy else None
    return await _stream(site.opening, (request.headers.get("x-tab", ""), "open", key), 0, work, waits)


async def _ask(request: Request) -> Response:
    """Answer one question of a tab; a later one of the same kind and side replaces it."""
    site, (run, arm, seed) = _site(request), _asked(request)
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return JSONResponse({"error": "Expected application/json.", "hint": ""}, 415)
    try:
        body = json.loads(await request.body())
        question = Question.of(body)
    except TooLarge as error:
        return JSONResponse({"error": str(error), "hint": ""}, 413)
    except (ValueError, RecursionError, BadQuestion) as error:
        said = str(error) if isinstance(error, BadQuestion) else "Expected JSON."
        return JSONResponse({"error": said, "hint": ""}, 400)
    bench = None if run is None else site.benches.get((run.key, arm, seed))
    if bench is None:
        return JSONResponse(
            {"error": "These models are not open (any more).", "hint": "", "reopen": True}, 409
        )
    tab, side = str(body.get("tab", ""))[:64], str(body.get("side", ""))[:8]
    opened: Bench = bench
    return await _stream(
        site.asking,
        (tab, side, question.kind),
        URGENCY[question.kind],
        lambda _tell: answers(opened, question),
    )


async def _stream(
    worker: Worker, key: Any, urgency: int, work: Any, first: dict[str, Any] | None = None
) -> Response:
    """Hand a job to a worker and send its answers as they come, after one that is known at once."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | Ended]()
    if first is not None:
        queue.put_nowait(first)

    def deliver(item: dict[str, Any] | Ended) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(queue.put_nowait, item)

    job = Job(key, urgency, lambda: work(deliver), deliver)
    try:
        worker.submit(job)
    except Busy:
        return JSONResponse({"error": BUSY, "hint": ""}, 503)

    async def lines() -> AsyncIterator[bytes]:
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Ended):
                    if item.dropped:
                        yield _line({"dropped": True})
                    elif item.error is not None:
                        yield _line(problem(item.error))
                    return
                yield _line(item)
        finally:
            worker.cancel(job)

    return StreamingResponse(lines(), media_type=LINES)


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(plain(value), ensure_ascii=True, separators=(",", ":")) + "\n").encode()


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _asked(request: Request) -> tuple[ServedRun | None, str, int]:
    parts = request.path_params
    return _site(request).runs.get(parts["run"]), parts["arm"], parts["seed"]


def _missing(sentence: str) -> Response:
    return Response(sentence, 404, media_type="text/plain; charset=utf-8")


def _rendered(name: str, **values: Any) -> Response:
    return HTMLResponse(_templates().get_template(name).render(version=__version__, **values))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("tunescope.serve", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=text.visible,
    )  # fmt: skip
    environment.filters["number"] = text.number
    return environment


@cache
def _packaged(name: str) -> bytes:
    part, path, _ = STATIC[name]
    return Path(str(resources.files(f"tunescope.{part}"))).joinpath(path).read_bytes()
