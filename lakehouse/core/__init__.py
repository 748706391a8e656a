"""Pure mechanics: storage, Delta commits, engines, landing readers, ledger, quarantine, rules.

What is here: functions and records that move and check data. They get everything they need as arguments.
What is not: dagster, settings, the environment (ruff's banned-api list and a test say so), and knowledge of any one table.
"""
