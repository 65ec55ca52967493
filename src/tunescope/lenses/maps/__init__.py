"""States drawn on a plane, base and tuned on the same axes."""
