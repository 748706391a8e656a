"""Landed files, of Airbyte and of anyone. `stage.py` makes staged bronze files of them; the others are its parts.

landed files ─▶ prepare.py (packing, avro, excel, careful) ─▶ forms.py ─▶ scan.py (documents, fields) ─▶ stage.py
"""
