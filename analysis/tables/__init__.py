"""Rows in: files, names, variables, metrics, and the table of experiments that everything else reads."""
