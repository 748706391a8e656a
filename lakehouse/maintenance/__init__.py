"""Maintenance: what keeps the tables small, readable and safe, and proves it.

Here: pins, optimise, vacuum, audit, backup and its proof, restore, rollback, and the job that does the weekly part.
Comes from: every Delta table of the lake, models' and backups' versions. Goes to: `ops/` tables, LAKEHOUSE_BACKUP_ROOT, a report.
Never: changes a row unasked; removes a file that a kept version needs; says that a backup is good without restoring it.
Rerun: what was done is left alone; what was cut off is finished.
"""
