"""Look inside a base model and a tuned one."""

from tunescope import compare

data = {"path": "reviews.csv", "text": "review", "label": "sentiment"}
found = compare("gpt2", "tuned", data=data, lenses=["cka", "weights"])
print(found)  # where the report is, and what was found
table = found["cka"].table  # a polars frame: site, layer, metric, value, low, high, n ...
between = table.filter(table["model"] == "base_tuned")
print(between.select("site", "layer", "value", "low", "high"))
