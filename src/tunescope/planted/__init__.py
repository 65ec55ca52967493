"""Generated corpora and hand-set models whose truth is known: for quickstart, tests and doctor."""
