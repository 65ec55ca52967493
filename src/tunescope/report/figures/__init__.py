"""Figures as plain Plotly dictionaries: pure functions from result tables, axes named by their values."""
