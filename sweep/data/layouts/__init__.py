"""How datasets lie on disk: class directories, and the originals' own list files, label files and binaries."""
