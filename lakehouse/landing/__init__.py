"""Landing: files as delivered.

Here: one external asset per stream of others and the sensor that sees new files; the assets that land feeds, orders and
    connectors' records themselves, or have an Airbyte server land them.
Comes from: whoever writes `<landing>/raw/<stream>/` (Airbyte, a person), the Delta table of a `DeltaSource`, an API, a database.
Goes to: bronze. Never: modifies, moves or removes a landed file.
Rerun: looking again is free; a run is requested only when the listing changed. What landed before does not land again.
"""
