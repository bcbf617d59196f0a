"""From the probe table to experiments, attribution and a report; imports neither torch nor Ray."""
