"""Readers: landed files, as somebody delivered them, become staged bronze data files. They are opened for reading only."""
