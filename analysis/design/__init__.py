"""What varies in a table, with what, and on which level."""
