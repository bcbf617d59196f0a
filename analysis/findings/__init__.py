"""Sentences; they assert only what the verdict of an estimate allows."""
