"""What every room stands on: errors, seeds, the store, progress lines, what a stage cost, where results come from.

It imports nothing of ours and has no face of its own: each file is one.
"""
