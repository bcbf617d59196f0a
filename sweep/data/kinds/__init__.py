"""The kinds of dataset, one file each; :mod:`sweep.data.open` chooses among them."""
