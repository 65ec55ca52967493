"""What tuning did to the weights; no data needed."""
