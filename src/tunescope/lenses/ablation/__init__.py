"""What a component does: take it away and see what the answer loses."""
