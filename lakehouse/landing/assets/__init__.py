"""Landing assets: one module for each kind of source, the shell around its pure module in `sources/`."""
