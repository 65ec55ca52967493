"""How alike the states of two models are, layer by layer."""
