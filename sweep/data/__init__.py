"""Datasets: readers and generators, splits and subsets, and images decoded once."""
