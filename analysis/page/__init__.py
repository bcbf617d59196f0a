"""What is seen: files, page, tables as text."""
