"""How large activations are, and which neurons shifted."""
