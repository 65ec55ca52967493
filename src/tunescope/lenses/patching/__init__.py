"""What an activation carries: exchange it between texts, or between base and tuned."""
