"""Figures: numbers in, picture out."""
