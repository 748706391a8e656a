"""The pages: what is shown and typed. Each asks one query module and lays the answer out; figures are not made here."""
