"""The fault rig: SIGKILL, full disks and read errors while the lake is written, and an oracle that counts row by row.

    driver.py     a warmed-up process; its forks do the work, and what is to happen to them happens at a named place
    oracle.py     what the lake must hold, computed from the landed files with none of the code under test
    campaign.py   seeded kills, recoveries and what came of them, as a table; alone: make test-faults

Here: faults of processes, disks and files. Not here: damaged content of files (`lakehouse_tests/core/`), wrong records
(`lakehouse_tests/silver/`).
"""

import os

#: Of each campaign over one kind of source; LAKEHOUSE_KILLS is another number, for a machine that has less time.
KILLS = int(os.environ.get("LAKEHOUSE_KILLS", "30"))
