"""Landing readers: files as somebody delivered them, turned into staged bronze data files.

`airbyte.py` knows the layout of Airbyte's S3 destination in its forms. A landed file is opened for reading only.
"""
