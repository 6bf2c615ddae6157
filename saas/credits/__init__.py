"""Credits: balance, ledger, and the price of a text."""
