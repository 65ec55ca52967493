"""The server: who may ask, what is sent, what is refused, and answers that equal the library's."""

from __future__ import annotations

import json
import shutil
import socket
import threading

import numpy as np
import polars as pl
import pytest
from serve_run import HOSTILE, TEXT, TOKEN
from starlette.testclient import TestClient

from tunescope.config import LensConfig, load_data
from tunescope.errors import RunError
from tunescope.evaluation.margins import margin
from tunescope.serve import app as app_module
from tunescope.serve.app import STATIC, make_app, make_site
from tunescope.serve.benches import Benches, bytes_of
from tunescope.serve.guard import MOST_BYTES
from tunescope.serve.opening import open_bench
from tunescope.serve.runs import find_runs
from tunescope.serve.server import listening

PORT = 8321
HOME = f"http://127.0.0.1:{PORT}"
ASK = "/ask/moods/full/0"


@pytest.fixture(scope="module")
def site(moods):
    made = make_site(find_runs([moods.parent]), "cpu", 1e9)
    yield made
    assert made.close()


@pytest.fixture
def stranger(site):
    return TestClient(make_app(site, TOKEN, PORT), base_url=HOME, follow_redirects=False)


@pytest.fixture
def client(stranger):
    answer = stranger.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Lax" in answer.headers["set-cookie"]
    return stranger


@pytest.fixture(scope="module")
def bench(moods):
    return open_bench(moods, "full", 0, "cpu")


def lines(answer):
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def opened(client):
    found = lines(client.post("/open/moods/full/0"))[-1]["ready"]
    assert (found["layers"], found["heads"], found["models"]) == (2, 4, ["base", "tuned"])
    return client


def ask(client, **question):
    return lines(client.post(ASK, json={"tab": "one", "side": "a", "text": TEXT, **question}))


def test_a_token_is_needed_and_a_wrong_one_is_refused(stranger):
    for path in ("/", "/static/style.css", "/runs/moods/report.html", "/?token=wrong"):
        answer = stranger.get(path)
        assert answer.status_code == 403, path
        assert "open the address that `tunescope serve` printed" in answer.text
    stranger.cookies.set(f"tunescope-{PORT}", TOKEN[:-1])
    assert stranger.get("/").status_code == 403
    assert stranger.post(ASK, json={}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", f"127.0.0.1.evil.example:{PORT}", "localhost:1"]
)
def test_a_foreign_host_is_refused_even_with_the_token(client, host):
    answer = client.get("/", headers={"Host": host})
    assert (answer.status_code, answer.text) == (403, "This Host is not served here.")
    assert client.get("/", headers={"Host": f"localhost:{PORT}"}).status_code == 200


def test_other_origins_may_not_ask_and_no_answer_allows_them(client):
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post(ASK, json={"kind": "text"}, headers=headers).status_code == 403
    answer = client.get("/", headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/", headers={"Origin": "http://evil.example"}).status_code == 403


def test_pages_carry_a_strict_policy(client):
    for path in ("/", "/bench/moods/full/0", *(f"/static/{name}" for name in STATIC)):
        answer = client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "<script>" not in answer.text.replace("&lt;script&gt;", "")
        assert " style=" not in answer.text
        assert " onclick" not in answer.text


def test_a_report_is_sent_into_a_sandbox_of_its_own(client, moods):
    answer = client.get("/runs/moods/report.html")
    assert answer.content == (moods / "report.html").read_bytes()
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts allow-downloads")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/runs/moods/study.yaml", "/runs/moods/..%2f..%2ftexts.csv", "/runs/moods/%2e%2e/texts.csv", "/runs/moods/",
        "/runs/other/report.html", "/runs/..%2f..%2fetc/report.html", "/static/..%2fapp.py", "/static/app.py",
        "/bench/moods/full/7", "/bench/moods/..%2f..%2fx/0", "/runs/moods/maps.html", "/nothing",
    ],
)  # fmt: skip
def test_nothing_but_the_written_pages_is_sent(client, path):
    assert client.get(path).status_code == 404


def test_a_watched_trainings_page_and_movies_are_sent_with_the_policy_of_pages(moods, tmp_path):
    run = shutil.copytree(moods, tmp_path / "run")
    (run / "watch.html").write_text("<p>steps</p>", encoding="utf-8")
    (run / "watch-heads.gif").write_bytes(b"GIF89a")
    (run / "other.gif").write_bytes(b"GIF89a")
    own = make_site(find_runs([run]), "cpu", 1e9)
    client = TestClient(make_app(own, TOKEN, PORT), base_url=HOME, cookies={f"tunescope-{PORT}": TOKEN})
    assert "/runs/run/watch.html" in client.get("/").text
    page, movie = client.get("/runs/run/watch.html"), client.get("/runs/run/watch-heads.gif")
    assert (page.status_code, movie.status_code) == (200, 200)
    assert (movie.headers["content-type"], movie.content) == ("image/gif", b"GIF89a")
    assert "sandbox" in movie.headers["content-security-policy"]
    for path in ("other.gif", "watch-..%2fother.gif", "watch-none.gif"):
        assert client.get(f"/runs/run/{path}").status_code == 404
    assert own.close()


def test_a_link_out_of_the_run_folder_is_not_followed(moods, tmp_path):
    run = shutil.copytree(moods, tmp_path / "run")
    (run / "report.html").unlink()
    (tmp_path / "secret.html").write_text("secret", encoding="utf-8")
    (run / "report.html").symlink_to(tmp_path / "secret.html")
    own = make_site(find_runs([run]), "cpu", 1e9)
    client = TestClient(make_app(own, TOKEN, PORT), base_url=HOME, cookies={f"tunescope-{PORT}": TOKEN})
    assert client.get("/runs/run/report.html").status_code == 404
    assert own.close()


def test_an_oversized_body_is_refused_whether_it_says_so_or_not(opened):
    big = b" " * (MOST_BYTES + 1)
    headers = {"Content-Type": "application/json"}
    assert opened.post(ASK, content=big, headers=headers).status_code == 413
    assert opened.post(ASK, content=iter([big[:1000], big]), headers=headers).status_code == 413
    assert opened.post(ASK, content=b"{}", headers={**headers, "Content-Length": "many"}).status_code == 413


def test_runs_are_listed_with_hostile_text_as_text(client):
    page = client.get("/").text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert "<img" not in page
    assert 'href="/bench/moods/full/0"' in page
    assert 'href="/runs/moods/report.html"' in page


def test_damaged_runs_and_those_of_other_versions_are_listed_with_the_reason(moods, tmp_path):
    older, damaged, empty = (
        shutil.copytree(moods, tmp_path / name) for name in ("older", "damaged", "empty")
    )
    about = json.loads((older / "environment.json").read_text())
    (older / "environment.json").write_text(json.dumps({**about, "format_version": 99}))
    (damaged / "data" / "rows.parquet").write_bytes(b"PAR1 no")
    shutil.rmtree(empty / "arms" / "full" / "seed-0" / "model")
    found = {run.key: run for run in find_runs([tmp_path])}
    assert "is a run of format_version 99" in (found["older"].problem or "")
    assert "rows.parquet is not readable Parquet" in found["damaged"].damaged[0]
    assert found["empty"].trainings[0].why_not == "its model is not in the run folder"
    own = make_site(list(found.values()), "cpu", 1e9)
    client = TestClient(make_app(own, TOKEN, PORT), base_url=HOME, cookies={f"tunescope-{PORT}": TOKEN})
    page = client.get("/").text
    assert "is a run of format_version 99" in page
    assert page.count("This run cannot be read.") == 1
    assert page.count("<strong>Damaged.</strong>") == 1
    assert client.post("/open/empty/full/0").status_code == 404
    assert "its model is not in the run folder" in client.get("/bench/empty/full/0").text
    assert own.close()


def test_runs_without_classes_say_what_the_bench_offers(moods, tmp_path):
    speaking, writing = (shutil.copytree(moods, tmp_path / name) for name in ("speaking", "writing"))
    about = json.loads((speaking / "data" / "summary.json").read_text())
    (speaking / "data" / "summary.json").write_text(json.dumps({**about, "labels": []}))
    study = (writing / "study.resolved.yaml").read_text()
    (writing / "study.resolved.yaml").write_text("task: summarise\n" + study.replace("task: classify\n", ""))
    found = {run.key: run for run in find_runs([tmp_path])}
    assert "language models without classes" in (found["speaking"].why_no_bench or "")
    assert "This run writes summaries" in (found["writing"].why_no_bench or "")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="There is no folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(RunError, match="is not a run folder and holds none"):
        find_runs([tmp_path])


def test_questions_are_answered_as_the_library_answers(opened, bench):
    (text,) = ask(opened, kind="text")
    assert text["pieces"] == bench.read(TEXT).pieces
    (switched,) = ask(opened, kind="switch", off=["L0H1", "L1.mlp"])
    for which in ("base", "tuned"):
        np.testing.assert_allclose(text["logits"][which], bench.predict(TEXT)[which], atol=1e-5)
        wanted = bench.switched(TEXT, ["L0H1", "L1.mlp"])[which]
        np.testing.assert_allclose(switched["logits"][which], wanted, atol=1e-5)
    assert [(part["layer"], part["model"]) for part in ask(opened, kind="grid")] == [
        (1, "base"), (1, "tuned"), (0, "base"), (0, "tuned"),
    ]  # fmt: skip
    (attention,) = ask(opened, kind="attention", layer=1, head=3)
    np.testing.assert_allclose(
        attention["patterns"]["tuned"], bench.attention(TEXT, 1, 3)["tuned"], atol=1e-5
    )
    assert [one["lexicon"] for one in ask(opened, kind="swaps")] == [
        one["lexicon"] for one in bench.swaps(TEXT)
    ]
    assert sum(len(part["logits"]) for part in ask(opened, kind="words")) == 2 * len(TEXT.split())


def test_means_are_made_once_and_then_used(opened, bench):
    (refused,) = ask(opened, kind="switch", off=["L0H1"], edit="mean")
    assert "means over train rows are not there yet" in refused["error"]
    assert ask(opened, kind="means")[-1] == {"share": 1.0}
    assert ask(opened, kind="means") == [{"share": 1.0}]
    for _ in bench.prepare_means():
        pass
    (switched,) = ask(opened, kind="switch", off=["L0H1"], edit="mean")
    wanted = bench.switched(TEXT, ["L0H1"], "mean")["tuned"]
    np.testing.assert_allclose(switched["logits"]["tuned"], wanted, atol=1e-5)


def test_bad_questions_are_refused_with_a_sentence(opened):
    for body, said in (
        ({"kind": "shell"}, "Expected a question with a kind"), ([], "Expected a question with a kind"),
        ({"kind": "text", "text": 3}, "Expected text, off"), ({"kind": "switch", "off": "L0H1"}, "Expected text, off"),
        ({"kind": "attention", "layer": True}, "Expected text, off"),
    ):  # fmt: skip
        answer = opened.post(ASK, json=body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
    broken = opened.post(ASK, content=b"{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["error"]) == (400, "Expected JSON.")
    assert opened.post(ASK, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    (empty,) = ask(opened, kind="text", text=" ")
    assert "The text is empty" in empty["error"]
    (none,) = ask(opened, kind="attention", layer=9)
    assert "layer 9 is outside the model" in none["error"]


def test_models_that_left_are_asked_to_be_opened_again(client, site):
    held = site.benches._open.copy()
    site.benches._open.clear()
    answer = client.post(ASK, json={"kind": "text", "text": TEXT})
    assert answer.status_code == 409
    assert answer.json()["reopen"] is True
    site.benches._open.update(held)


def test_the_least_recently_asked_models_leave_and_the_newest_stays(bench):
    size = bytes_of(bench)
    assert size == sum(
        one.numel() * 4
        for model in (bench.subject.base, bench.subject.tuned) for one in model.parameters()
    )  # fmt: skip
    benches = Benches(2.5 * size)
    assert benches.put("a", bench) == []
    assert benches.put("b", bench) == []
    benches.get("a")
    assert benches.put("c", bench) == ["b"]
    assert benches.keys() == ["a", "c"]
    assert Benches(1).put("only", bench) == []


def test_the_head_is_the_one_that_the_runs_lenses_had_and_is_not_fitted_again(moods, monkeypatch):
    monkeypatch.setattr("tunescope.serve.opening.base_head", _refuse)
    opened = open_bench(moods, "full", 0, "cpu")
    examples = pl.read_parquet(moods / "results" / "examples" / "ablation.parquet")
    mine = examples.filter(
        (pl.col("model") == "base") & (pl.col("component") == "L1H2") & (pl.col("edit") == "zero")
    )
    row_id, change = mine["row_id"][0], mine["margin_change"][0]
    row = pl.read_parquet(moods / "data" / "rows.parquet").filter(pl.col("row_id") == row_id)
    text, label = row["text"][0], np.array([row["label"][0]])
    before, after = opened.predict(text)["base"], opened.switched(text, ["L1H2"])["base"]
    assert margin(after[None], label)[0] - margin(before[None], label)[0] == pytest.approx(change, abs=1e-5)
    assert "probe: logistic regression" in opened.subject.base.record["head"]


def test_a_head_that_no_lens_kept_is_fitted_once_and_a_damaged_one_again(moods, tmp_path, monkeypatch):
    run = shutil.copytree(moods, tmp_path / "run")
    shutil.rmtree(run / "looks")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = open_bench(run, "full", 0, "cpu").predict(TEXT)["base"]
    monkeypatch.setattr("tunescope.serve.opening.base_head", _refuse)
    np.testing.assert_array_equal(open_bench(run, "full", 0, "cpu").predict(TEXT)["base"], first)
    (kept,) = (tmp_path / "cache" / "tunescope" / "heads").iterdir()
    kept.write_bytes(b"no")
    with pytest.raises(AssertionError, match="fitted again"):
        open_bench(run, "full", 0, "cpu")


def _refuse(*_args, **_named):
    raise AssertionError("the probe is fitted again")


def test_serving_writes_nothing_into_the_run(moods, bench):
    before = {path: path.stat().st_mtime_ns for path in moods.rglob("*")}
    open_bench(moods, "full", 0, "cpu").predict(TEXT)
    assert {path: path.stat().st_mtime_ns for path in moods.rglob("*")} == before


def test_a_slow_opening_does_not_hold_up_questions(opened, monkeypatch):
    go, asked = threading.Event(), threading.Event()

    def slow(*_args):
        asked.set()
        assert go.wait(20)
        raise RunError("no such training")

    monkeypatch.setattr(app_module, "open_bench", slow)
    site = opened.app.app.state.site
    held = site.benches._open.popitem()
    found = []
    thread = threading.Thread(target=lambda: found.append(opened.post("/open/moods/full/0").text))
    thread.start()
    assert asked.wait(20)
    site.benches._open[held[0]] = held[1]
    assert ask(opened, kind="text")[0]["tokens"] > 5
    go.set()
    thread.join(20)
    assert "no such training" in found[0]


def test_a_port_in_use_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            RunError, match=f"Port {port} of 127.0.0.1 cannot be used: address already in use"
        ):
            listening(port)


def test_hostile_labels_come_back_as_they_are(opened, bench):
    assert HOSTILE in bench.labels
    assert lines(opened.post("/open/moods/full/0"))[-1]["ready"]["labels"] == list(bench.labels)


def test_a_comparison_is_opened_as_compare_saw_it(moods, tmp_path, monkeypatch):
    from tunescope.checkpoints.compare import compare_folders
    from tunescope.checkpoints.request import CompareRequest

    base, tuned = moods.parent.parent / "base", moods / "arms" / "full" / "seed-0" / "model"
    data = moods.parent.parent / "texts.csv"
    lens = {"lens": "ablation", "options": {"rows": {"n": 8}, "edits": ["zero"], "reference_rows": 16}}
    rows = load_data({"path": str(data), "text": "review", "label": "mood"})
    lenses = [LensConfig.model_validate(lens)]
    compare_folders(
        CompareRequest(str(base), [str(tuned)], rows, tmp_path / "run", lenses=lenses, device="cpu")
    )
    (found,) = find_runs([tmp_path])
    (training,) = found.trainings
    assert found.why_no_bench is None
    assert training.why_not is None
    monkeypatch.setattr("tunescope.serve.opening.fit_probe", _refuse)
    opened = open_bench(found.folder, training.arm, training.seed, "cpu")
    examples = pl.read_parquet(tmp_path / "run" / "results" / "examples" / "ablation.parquet")
    rows = pl.read_parquet(tmp_path / "run" / "data" / "rows.parquet")
    for which in ("base", "tuned"):
        mine = examples.filter((pl.col("model") == which) & (pl.col("component") == "L0H3")).row(
            0, named=True
        )
        row = rows.filter(pl.col("row_id") == mine["row_id"]).row(0, named=True)
        before, after = opened.predict(row["text"])[which], opened.switched(row["text"], ["L0H3"])[which]
        label = np.array([row["label"]])
        change = margin(after[None], label)[0] - margin(before[None], label)[0]
        assert change == pytest.approx(mine["margin_change"], abs=1e-5)
    assert 'id="bench-rows"' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("texts", ["all", "examples", "none"])
def test_the_reports_bench_holds_no_word_where_texts_stay_home(moods, texts):
    from tunescope.report import bench as section
    from tunescope.report.page import render
    from tunescope.report.read import read_run

    row = json.loads((moods / "looks" / "full" / "seed-0" / "bench" / "row.json").read_text(encoding="utf-8"))
    shown = section.bench(read_run(moods, texts))
    page = render(read_run(moods, texts))
    assert shown.has_texts == (texts != "none")
    assert (row["text"] in page) == (texts != "none")
    assert row["row_id"] in shown.payload
    assert "unsafe" not in page.partition("Content-Security-Policy")[2][:1000]


def test_a_damaged_row_spoils_its_own_section_alone(moods, tmp_path):
    from tunescope.report import write_report

    run = shutil.copytree(moods, tmp_path / "run")
    (run / "looks" / "full" / "seed-0" / "bench" / "row.json").write_text('{"format_version": 1}')
    page = write_report(run).read_text(encoding="utf-8")
    assert "expected the entry" in page
    assert 'id="bench-rows"' not in page
    assert 'id="ablation"' in page
