"""Open what run or compare wrote."""

from tunescope import load_run

run = load_run("runs/compare")
print(run.arms, run.lenses)
print(run.findings)
