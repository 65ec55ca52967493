"""Verdicts on a study's published claims, by rule."""
