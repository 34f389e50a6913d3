"""One file per kind of topology: a frozen class of its parameters that can build itself."""
